"""`python -m report.bench`: what one training step costs, beside hypnettorch's on the same work.

In one process, warm, all taking turns, medians: a step with each kind of penalty, at 0 to 99 old
tasks, in three settings (`laptop`: the sizes of our profile laptop-plain; `original`: that of the
original project's best run; `paper`: that of von Oswald et al., 1906.00695, for 100 tasks). Before
anything is timed, both must compute the same penalty, and gradient, on the same weights.
"""

import argparse
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from hnetlib.experiment.config import Config, available_cores
from hnetlib.experiment.files import write_json
from hnetlib.experiment.provenance import provenance
from hnetlib.experiment.step import TrainingStep, prepare_torch
from hnetlib.hypernet import Hypernetwork
from hnetlib.regularizer import TaskRegularizer
from report import bench_peer
from report.bench_peer import Setting

OLD_TASKS = (0, 1, 10, 50, 99)
Step = Callable[[], object]


SETTINGS = {
    "laptop": Setting((784, 100, 10), 10, 64, 32, 256),
    "original": Setting((784, 300, 10), 30, 100, 100, 256),
    # images padded to 32 x 32 and a head of 10 for each of 100 tasks, as in the paper's code
    "paper": Setting((1024, 1000, 1000, 1000), 404, 128, 12, 128),
}
OURS, PEER = "hnetlib", "hypnettorch"
# penalty as named in the table: our kind and its penalty_size; old tasks drawn by the peer
KINDS = {"rows": ("rows", 60), "1 task": ("tasks", 1), "8 tasks": ("tasks", 8), "all": ("all", 1)}
PEER_KINDS = {"1 task": 1, "8 tasks": 8, "all": None}
STATUS = Path("/proc/self/status")
HEADER = "setting   old tasks  library      penalty        ms  of rate  kept MB  peak MB"
LINE = (
    "{setting:10}{old_tasks:9}  {library:13}{penalty:8}{ms:9.1f}{of_product_rate:9.0%}"
    "{stored_mb:9.0f}{peak:>9}"
)


@dataclass(frozen=True)
class Case:
    """One step to measure."""

    setting: str
    old_tasks: int
    library: str
    penalty: str


def our_step(
    setting: Setting, hnet: Hypernetwork, num_old: int, kind: str, size: int, config: Config
) -> Step:
    """A training step on the task behind `num_old` old ones."""
    regularizer = TaskRegularizer(hnet, penalty=kind, penalty_size=size, old_tasks=range(num_old))
    learning = ExitStack()
    learning.enter_context(regularizer.learning(num_old))
    step = TrainingStep(config, hnet, regularizer, num_old)
    images, labels = batch(setting, config.device)
    generator = torch.Generator().manual_seed(0)

    def run() -> None:
        step(images, labels, regularizer.draw(generator))

    run.learning = learning  # until the step is dropped
    run.stored = sum(tensor.nbytes for tensor in tensors_of(regularizer.snapshots))
    return run


def batch(setting: Setting, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Random images [B, D] and labels [B]."""
    images = torch.rand(setting.batch_size, setting.sizes[0], device=device)
    return images, torch.randint(10, (setting.batch_size,), device=device)


def tensors_of(snapshots: object) -> list[torch.Tensor]:
    """The tensors that snapshots are kept in."""
    return [t for t in vars(snapshots).values() if isinstance(t, torch.Tensor)]


def make_step(case: "Case", config: Config) -> Step:
    """The training step of one case, with everything it needs."""
    torch.manual_seed(0)
    setting = SETTINGS[case.setting]
    if case.library == "hypnettorch":
        size = PEER_KINDS.get(case.penalty)
        return bench_peer.hypnettorch_step(setting, case.old_tasks, size, config)
    penalty, size = KINDS.get(case.penalty, ("rows", 1))
    hnet = setting.hnet(case.old_tasks + 1).to(config.device)
    return our_step(setting, hnet, case.old_tasks, penalty, size, config)


def cases_of(setting: str, old_tasks: int, libraries: Sequence[str]) -> list["Case"]:
    """Every library and penalty that there is at this number of old tasks."""
    found = []
    for library in libraries:
        kinds = {"hnetlib": {k: v[1] for k, v in KINDS.items()}, "hypnettorch": PEER_KINDS}[library]
        names = [k for k, size in kinds.items() if "task" not in k or size <= old_tasks]
        names = names if old_tasks else ["none"]
        found += [Case(setting, old_tasks, library, name) for name in names]
    return found


def measure(cases: Sequence["Case"], config: Config, seconds: float) -> list[dict]:
    """Median milliseconds and products of each case's step, all taking turns: a row each.

    The slowest is timed for about this many `seconds`, and each at least three times.
    """
    steps = [make_step(case, config) for case in cases]
    rate = product_rate(config.device)
    products = []
    for step in steps:
        step()  # warms up, and makes the optimiser's state
        with FlopCounterMode(display=False) as counter:
            step()
        products.append(counter.get_total_flops())
    longest = max(clock(step, config.device) for step in steps)
    rounds = range(max(3, min(50, int(seconds / longest))))
    measured = [[clock(step, config.device) for step in steps] for _ in rounds]
    rows = []
    for case, step, flop, times in zip(
        cases, steps, products, zip(*measured, strict=True), strict=True
    ):
        middle = statistics.median(times)
        row = asdict(case) | {"ms": 1e3 * middle, "n": len(times)}
        row |= {"ms_min": 1e3 * min(times), "ms_max": 1e3 * max(times), "gflop": flop / 1e9}
        row |= {"of_product_rate": flop / middle / rate, "product_gflops": rate / 1e9}
        rows.append(row | {"stored_mb": step.stored / 2**20})
    return rows


def peak_megabytes(case: "Case", config: Config) -> float | None:
    """What a process that does nothing else takes for this case above its imports; Linux only."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
        return alone.submit(_peak, case, config).result()


def _peak(case: "Case", config: Config) -> float | None:
    prepare_torch(config)
    if config.device == "cuda":
        step = make_step(case, config)
        torch.cuda.reset_peak_memory_stats()
        step()
        return torch.cuda.max_memory_allocated() / 2**20
    if not STATUS.exists():
        return None
    before = _resident()
    step = make_step(case, config)
    for _ in range(2):
        step()
    return _resident() - before


def _resident() -> float:
    """The most memory this process has held so far, in MiB."""
    lines = STATUS.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**10


def clock(step: Step, device: str) -> float:
    """Seconds that a call takes, the GPU's work included."""
    start = time.perf_counter()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def product_rate(device: str, size: int = 2048, repeats: int = 9) -> float:
    """What this machine reaches in products of large square matrices, in FLOP per second."""
    a, b = torch.rand(2, size, size, device=device)

    def multiply() -> torch.Tensor:
        return a @ b

    clock(multiply, device)
    return 2 * size**3 / statistics.median(clock(multiply, device) for _ in range(repeats))


def ratios(rows: list[dict]) -> dict[str, float]:
    """The comparisons that matter, by what they compare: above 1 the first takes longer."""
    ms = {(r["setting"], r["old_tasks"], r["library"], r["penalty"]): r["ms"] for r in rows}
    found = {}
    for setting in dict.fromkeys(row["setting"] for row in rows):
        for old, name, numerator, denominator in (
            (99, "ours rows at 99 old tasks / at 1", (99, OURS, "rows"), (1, OURS, "rows")),
            # fewer rows than are drawn exist at first
            (99, "ours rows at 99 old tasks / at 10", (99, OURS, "rows"), (10, OURS, "rows")),
            (50, "hypnettorch all / ours all", (50, PEER, "all"), (50, OURS, "all")),
            (50, "hypnettorch all / ours rows", (50, PEER, "all"), (50, OURS, "rows")),
            (50, "hypnettorch 1 task / ours rows", (50, PEER, "1 task"), (50, OURS, "rows")),
        ):
            a, b = (ms.get((setting, *key)) for key in (numerator, denominator))
            if a and b:
                found[f"{setting}, {old} old tasks: {name}"] = a / b
    return found


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m report.bench", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--out", type=Path, default=Path("report/build/bench.json"))
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--old-tasks", nargs="+", type=int, default=list(OLD_TASKS))
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", choices=["float32", "tf32", "bf16"], default="float32")
    parser.add_argument("--seconds", type=float, default=3.0, help="to time the slowest step for")
    parser.add_argument("--without-peer", action="store_true", help="time hnetlib alone")
    asked = parser.parse_args(arguments)
    try:
        config = Config(threads=asked.threads, device=asked.device, precision=asked.precision)
        if not asked.without_peer:
            bench_peer.need_hypnettorch()
    except (ValueError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    prepare_torch(config)
    torch.use_deterministic_algorithms(False)  # the peer was not written for it
    if not asked.without_peer:
        print(f"same penalty on the same weights: {bench_peer.check_same_penalty()}")
    libraries = [OURS] if asked.without_peer else [OURS, PEER]
    rows = []
    print(HEADER)
    for setting in asked.settings:
        for old_tasks in asked.old_tasks:
            cases = cases_of(setting, old_tasks, libraries)
            found = measure(cases, config, asked.seconds)
            for case, row in zip(cases, found, strict=True):
                if old_tasks == max(asked.old_tasks):
                    row["peak_mb"] = peak_megabytes(case, config)
                peak = row.get("peak_mb")
                print(LINE.format(peak="" if peak is None else f"{peak:.0f}", **row), flush=True)
            rows += found
    for what, ratio in ratios(rows).items():
        print(f"{ratio:7.2f}  {what}")
    settings = {"threads": asked.threads, "device": asked.device, "precision": asked.precision}
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "provenance": provenance(settings["device"]) | settings,
        "rows": rows,
        "ratios": ratios(rows),
    }
    write_json(asked.out, content)
    print(f"written: {asked.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
