"""Numbers that are typed in Markdown, not printed by a cell: each is that of its file."""

import json
import statistics

import pytest

from hnetlib.experiment import paths
from hnetlib.experiment.config import NUM_PIXELS, Config
from hnetlib.experiment.frontier import searched
from hnetlib.targets import make_target

ROOT = paths.PACKAGE.parent


def read(name):
    return json.loads((ROOT / "report" / "reference" / name).read_text(encoding="utf-8"))


def matrix(profile, seed=0):
    """R of one seed, in percent."""
    R = read(f"{profile}/runs/hnet-s{seed}.json")["results"]["R"]
    return [[100 * (value or 0) for value in row] for row in R]


def learned(profile, tasks):
    R = matrix(profile)
    return statistics.fmean(R[t][t] for t in tasks)


def settings(profile):
    return Config.of_record(read(f"{profile}/runs/hnet-s0.json")["config"])


def differing(*profiles):
    mine, other = (settings(profile).as_dict() for profile in profiles)
    return {name for name, value in mine.items() if value != other[name]}


def one(rows, **wanted):
    (found,) = [row for row in rows if wanted.items() <= row.items()]
    return found


def row(profile):
    return one(read(f"{profile}/summary.json"), recorded_as="hnet")


def size(name):
    return sum(p.numel() for p in make_target(name, NUM_PIXELS).parameters())


def tried(beta, penalty="rows"):
    settings = {"lr": 3e-3, "hnet_activation": "sine", "beta": beta, "penalty": penalty}
    return 100 * one(read("standard/tried.json"), settings=settings)["acc"]


def si(strength):
    rows = read("published10/search.json")
    return 100 * one(rows, method="si-multihead", settings={"strength": strength})["acc"]


def draw(penalty, size, seed=0):
    """A draw of the study over a hundred tasks, one seed: percent and ms, with its best beta."""
    rows = [
        row
        for row in read("laptop/study.json")["rows"]
        if (row["num_tasks"], row["penalty"], row["seed"]) == (100, penalty, seed)
        and (penalty == "all" or row["penalty_size"] == size)
    ]
    best = max(rows, key=lambda row: row["acc"])
    return 100 * best["acc"], best["ms_per_step"]


def rows_over_tasks(rows, tasks):
    return draw("rows", rows)[0] - draw("tasks", tasks)[0]


def narrow(stored):
    """Of separate networks that store no more, in percent."""
    return 100 * max(acc for size, acc in searched("separate") if size <= stored)


def decline():
    return learned("original", range(10)) - learned("original", range(90, 100))


def wide(strength):
    """Of wide EWC on ten tasks with all steps, on validation."""
    rows = read("laptop/search.json") + read("laptop/stronger.json")
    settings = {"lr": 3e-3, "strength": strength}
    return 100 * one(rows, method="ewc-multihead-matched", settings=settings)["acc"]


def percent(profile, name):
    return 100 * row(profile)[name]


def targets(profile, stored=None):
    return (stored or row(profile)["stored_eval"]) / size(row(profile)["target"])


def whole_and_160_rows():
    return zip(draw("all", None), draw("rows", 160), strict=True)


def whole_gains():
    (whole, some), _ = whole_and_160_rows()
    return whole - some


def whole_takes():
    _, (whole, some) = whole_and_160_rows()
    return whole / some


def after_forty():
    return statistics.fmean(a for s in range(3) for a in matrix("standard", s)[39][:40])


STORED = 2_982_101  # by the original project's best run
TYPED = {  # chapter, what is typed: where it is from
    ("92", "1.6 percentage points less well than its first ten", "1.6"): decline,
    ("92", "learns its tasks to 95.18 %", "95.18"): lambda: percent(
        "paper-brief", "learning_acc_mean"
    ),
    ("92", "loses 1.79 percentage points", "1.79"): lambda: -percent("paper-brief", "bwt_mean"),
    ("92", "learns its tasks to about 92 %", "92"): lambda: percent(
        "standard", "learning_acc_mean"
    ),
    ("92", "a hundred 69 %", "69"): lambda: percent("standard", "acc_mean"),
    ("92", "after forty tasks it has about 83 %", "83"): after_forty,
    ("92", "keep 70.4 % with its beta, 0.03", "70.4"): lambda: tried(0.03),
    ("92", "70.9 % with 0.1, and", "70.9"): lambda: tried(0.1),
    ("92", "70.9 % again", "70.9"): lambda: tried(0.1, "all"),
    ("92", "keep 88.6 % with 0.1", "88.6"): lambda: si(0.1),
    ("92", "91.3 % with 30", "91.3"): lambda: si(30.0),
    ("92", "91.1 % with 100", "91.1"): lambda: si(100.0),
    ("92", "keep more with a strength of 1000, tried since (97.56 %", "97.56"): lambda: wide(
        1000.0
    ),
    ("92", "against 97.39 %", "97.39"): lambda: wide(300.0),
    ("92", "a hypernetwork 72 times its size", "72"): lambda: targets("laptop"),
    ("92", "a hypernetwork 12.5 times its size", "12.5"): lambda: targets("original", STORED),
    ("90", "by 15 percentage points at the cost of one task", "15"): lambda: rows_over_tasks(10, 1),
    ("90", "and 3 at that of six", "3"): lambda: rows_over_tasks(60, 6),
    ("90", "keeps 0.6 percentage points more than 160", "0.6"): whole_gains,
    ("90", "two and a half times as long", "2.5"): whole_takes,
    ("README", "stores 72 targets' worth", "72"): lambda: targets("laptop"),
    ("README", "as much reach 97.5 %", "97.5"): lambda: narrow(row("laptop")["stored_eval"]),
}


@pytest.mark.parametrize(("place", "said", "typed"), TYPED)
def test_what_is_typed_is_what_the_file_says(place, said, typed):
    if place == "README":
        text = (ROOT / "README.md").read_text(encoding="utf-8")
    else:
        (notebook,) = (ROOT / "notebooks").glob(f"{place}_*.ipynb")
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    assert " ".join(text.split()).count(said) == 1
    places = len(typed.partition(".")[2])
    assert f"{TYPED[place, said, typed]():.{places}f}" == typed


def test_the_runs_by_the_papers_settings_differ_in_what_appendix_c_says():
    said = {"profile", "num_tasks", "steps_per_task"}
    assert differing("paper", "paper-brief") == said
    said = {"profile", "num_tasks", "hnet_hidden", "hnet_activation", "num_chunks", "beta"}
    said |= {"task_token_dim", "chunk_token_dim", "penalty", "penalty_size"}
    assert differing("paper", "paper10") - {"threads", "eval_every"} == said
    ours, theirs = settings("paper"), settings("paper10")
    assert ours.beta * 10 == pytest.approx(theirs.beta)
    assert (ours.hnet_hidden[2:], theirs.hnet_hidden) == ((350,), (25, 25))
    assert ours.steps_per_task == 5 * settings("paper-brief").steps_per_task
