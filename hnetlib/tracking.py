"""TensorBoard: one log directory a run, written as it trains and rewritten when it resumes."""

import json
import shutil
import warnings

import numpy as np

from hnetlib.runs import Run

Scalar = tuple[str, float, int]  # tag, value, step


class Tracker:
    """Scalars of one run. Tags `train/...` count optimiser steps, `tasks/...` learned tasks.

    The log is always what `history` says: resuming from a checkpoint starts the log anew and
    replays the history, so that nothing appears twice after a run was killed.
    """

    def __init__(self, run: Run, history: list[Scalar] | None = None) -> None:
        with warnings.catch_warnings():  # tensorboard's own imports warn
            warnings.simplefilter("ignore")
            from torch.utils.tensorboard import SummaryWriter
        shutil.rmtree(run.log_dir, ignore_errors=True)
        self.run = run
        self.history: list[Scalar] = []
        self.writer = SummaryWriter(str(run.log_dir), flush_secs=10)
        self.writer.add_text(
            "config", f"```json\n{json.dumps(run.config.as_dict(), indent=1)}\n```"
        )
        for scalar in history or []:
            self.add(*scalar)

    def add(self, tag: str, value: float, step: int) -> None:
        """One point of one curve."""
        self.history.append((tag, float(value), int(step)))
        self.writer.add_scalar(tag, value, step)

    def finish(self, metrics: dict[str, float], R: np.ndarray) -> None:
        """The final metrics beside the settings, and R as an image; closes the log."""
        settings = {
            name: value if isinstance(value, (int, float, str)) else str(value)
            for name, value in self.run.config.as_dict().items()
        }
        final = {f"final/{name}": value for name, value in metrics.items()}
        self.writer.add_hparams(settings, final, run_name=".")
        self.writer.add_image("R", np.nan_to_num(R)[None], len(R))  # [1, T, T], grey
        self.writer.close()
