"""One script in a process that does nothing else, so that its memory and time are its own."""

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def run_alone(script: str, asked: dict) -> dict:
    """What `stream.measure` found; RuntimeError with the last line of what went wrong."""
    command = [sys.executable, "-m", "report.peers.stream", script, json.dumps(asked)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parents[1])
    if done.returncode:
        last = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
        raise RuntimeError(f"{script}: {last}")
    return json.loads(done.stdout.splitlines()[-1])
