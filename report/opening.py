"""The first screen: abstract, one figure and three numbers, read from committed results.

No number of it is typed here but those that others published, which name their source.
"""

from dataclasses import dataclass, field
from pathlib import Path

from hnetlib.experiment import frontier as known
from report.figure import Point, frontier
from report.results import read_rows

HERE = Path(__file__).resolve().parent
ALL_TASKS = 100
FULL_STEPS = 400  # a task; runs of fewer are ablations of length, not results
# (profile, method) of what the abstract is about
OURS, ADAM = ("laptop", "hnet"), ("laptop-plain", "hnet-adam")
FREE, SEPARATE, SMALL = ("laptop", "hnet-beta0"), ("laptop", "separate"), ("standard", "hnet")
TOKENS = "tokens"  # the profile in which tokens carry the task
PUBLISHED = [
    *(Point(p.name, p.stored, p.acc, "published", p.source, p.label) for p in known.PUBLISHED),
    Point("original project, best run", 2_982_101, 0.9431, "published", "its training log"),
]
LABELS = {  # beside its mark
    OURS: "ours",
    ADAM: "ours by Adam",
    SMALL: "smaller than its target",
    SEPARATE: "separate",
    ("laptop", "ewc-multihead"): "EWC, SI, a head per task",
    ("laptop", "ewc-multihead, wide"): "EWC, wide",
    ("laptop", "si-multihead, wide"): "SI, wide",
    ("laptop", "joint-multihead"): "joint, a head per task",
    ("laptop", "joint-plain"): "joint",
    ("laptop", "ewc"): "EWC, SI, one head",
    ("laptop", "fine-tuning"): "fine-tuning",
    FREE: "ours, no penalty",
}


@dataclass(frozen=True)
class Opening:
    """What the first screen shows of the committed results; empty where there are none."""

    abstract: str = ""
    numbers: list[dict[str, str]] = field(default_factory=list)
    figure: str = ""

    @property
    def schematic(self) -> str:
        """How a token becomes a network, drawn by hand."""
        return (HERE / "schematic.svg").read_text(encoding="utf-8")


def read_opening(folder: Path) -> Opening:
    """The opening of the results committed in `folder`; PageError where they can't be read."""
    rows = [row for path in sorted(folder.glob("*/summary.json")) for row in read_rows(path)]
    whole = [row for row in rows if row.get("num_tasks") == ALL_TASKS and _has_all_steps(row)]
    by_name = {(row["profile"], known.called(row)): row for row in whole}
    if not all(key in by_name for key in (OURS, ADAM, FREE, SEPARATE, SMALL)):
        return Opening()
    return Opening(_abstract(by_name), _numbers(by_name), _figure(whole))


def _has_all_steps(row: dict) -> bool:
    return row.get("steps_per_task", 0) >= FULL_STEPS


def _abstract(rows: dict) -> str:
    """About 120 words: what was asked, done and found, and what it costs."""
    ours, separate = rows[OURS], rows[SEPARATE]
    one = separate["stored_eval"] / ALL_TASKS
    return (
        "A hypernetwork reads a task's token and writes the parameters of a network that solves "
        f"it. Here one hypernetwork learns the {ALL_TASKS} tasks of PermutedMNIST in "
        "sequence and keeps no image. A penalty on changing what old tokens generate, and a last "
        "layer written with least change to old tasks, hold its final average accuracy at "
        f"{_accuracy(ours)} % (n = {ours['n_seeds']}); without either "
        f"{_accuracy(rows[FREE])} % are left. ReLUs, Adam for every layer, half the size and "
        f"other settings hold {_accuracy(rows[ADAM])} %. Ours is "
        f"{ours['stored_eval'] / one:.0f} times one target; {ALL_TASKS} separate networks, "
        f"{separate['stored_eval'] / ours['stored_eval']:.1f} times its size, reach "
        f"{_accuracy(separate)} %. Smaller than one target, it keeps {_accuracy(rows[SMALL])} %. "
        f"{_of_tokens(rows)}The task identity is given at test time."
    )


def _of_tokens(rows: dict) -> str:
    """What tokens that carry the task reach, once that is committed."""
    for (profile, _), row in rows.items():
        if profile == TOKENS:
            return (
                "A token for each task and chunk, and a generator frozen after the first "
                "task, turn that round: with more steps and a larger target it keeps "
                f"{_accuracy(row)} % in {row['stored_eval']:,} parameters and forgets nothing. "
            )
    return ""


def _numbers(rows: dict) -> list[dict[str, str]]:
    """Three numbers, each with its n, its spread and what it stores."""
    labels = {
        (TOKENS, "hnet"): "tokens that carry the task",
        (f"{TOKENS}-small", "hnet"): "the same, with shorter tokens",
        OURS: "one hypernetwork, our way of learning",
        ADAM: "one hypernetwork, Adam for every layer",
        SEPARATE: f"{ALL_TASKS} separate networks, as many steps",
    }
    return [
        {
            "label": label,
            "value": f"{_accuracy(rows[key])} %",
            "note": f"n = {rows[key]['n_seeds']}, {rows[key]['stored_eval']:,} parameters stored"
            + _not_told(rows[key]),
        }
        for key, label in [pair for pair in labels.items() if pair[0] in rows][:3]
    ]


def _not_told(row: dict) -> str:
    """What is kept where the task has to be found, of a row that says so."""
    mean = row.get("not_told_mean")
    return "" if mean is None else f"; not told the task {100 * mean:.2f} %"


def _accuracy(row: dict) -> str:
    spread = f" ± {100 * row['acc_std']:.2f}" if row.get("acc_std") else ""
    return f"{100 * row['acc_mean']:.2f}{spread}"


def _figure(rows: list[dict]) -> str:
    points = [_point(row) for row in rows] + PUBLISHED
    best, least = max(points, key=lambda p: p.acc), min(points, key=lambda p: p.stored)
    return frontier(
        points,
        f"Final average accuracy against everything stored, PermutedMNIST with {ALL_TASKS} tasks",
        f"{len(points)} marks of accuracy over the parameters stored. The most accurate, "
        f"{best.name}, has {100 * best.acc:.1f} % with {best.stored:,.0f}; the smallest, "
        f"{least.name}, has {100 * least.acc:.1f} % with {least.stored:,.0f}.",
    )


def _point(row: dict) -> Point:
    method = known.called(row)
    kind = "at-once" if method.startswith("joint") else "other"
    if kind == "other" and ("hnet" in method or "token" in method):
        kind = "ours"
    note = f"{_accuracy(row)} %, n = {row['n_seeds']}, profile {row['profile']}"
    label = LABELS.get((row["profile"], method), row["profile"] if TOKENS in row["profile"] else "")
    return Point(method, row["stored_eval"], row["acc_mean"], kind, note, label)
