"""Every parameter of every notebook at its edges: it works, or is refused before anything trains.

Notebooks run here cell by cell in this process, as papermill would inject parameters, only faster.
"""

import builtins
import re
import subprocess
import sys

import matplotlib
import nbformat
import pytest
import torch

from hnetlib.experiment import learner, paths

ROOT = paths.PACKAGE.parent
SMALL = {"profile": "smoke", "dataset": "mnist5k", "threads": 1}
SHORT = {"steps_per_task": 2}


def run(number: str, **parameters) -> dict:
    """The notebook's names after its last cell; what it showed is under `shown`."""
    (source,) = (ROOT / "notebooks").glob(f"{number}_*.ipynb")
    shown: list[dict] = []
    names = {"__name__": "__main__", "shown": shown}
    for cell in nbformat.read(source, as_version=4).cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, source.name, "exec"), names)
            if "parameters" in cell.metadata.get("tags", []):
                unknown = set(parameters) - set(names)
                assert not unknown, f"{source.name} has no {unknown}"
                names |= SMALL | parameters
    return names


@pytest.fixture(autouse=True)
def as_in_a_notebook(monkeypatch):
    """Nothing is drawn on a screen, and what is displayed goes nowhere."""
    matplotlib.use("Agg")
    monkeypatch.setattr("hnetlib.notebook.display", lambda *_, **__: None)
    monkeypatch.setattr(builtins, "print", lambda *_, **__: None)


@pytest.fixture
def nothing_trains(monkeypatch):
    def trains(*_, **__):
        pytest.fail("training had begun")

    monkeypatch.setattr(torch.optim.Adam, "step", trains)
    monkeypatch.setattr(learner, "train_or_load", trains)


COUNT = "expected a whole number of at least 1"
POSITIVE = "expected a number above 0"
SEEDS = "expected a whole number from 0 to 9223372036854775807"
OF_ALL = [  # for every notebook that has the parameter
    ("profile", "huge", "expected one of laptop, smoke"),
    ("profile", 3, "expected one of laptop, smoke"),
    ("dataset", "cifar", "expected one of auto, mnist, mnist5k"),
    ("dataset", ["mnist"], "expected one of auto, mnist, mnist5k"),
    ("seed", -1, SEEDS),
    ("seed", 2**63, SEEDS),
    ("seed", 1.5, SEEDS),
    ("seed", "one", SEEDS),
    ("permutation_seed", -1, SEEDS),
    ("permutation_seed", True, SEEDS),
    ("threads", 0, COUNT),
    ("threads", "two", COUNT),
    ("steps", 0, COUNT),
    ("steps", -5, COUNT),
    ("steps", 2.5, COUNT),
    ("steps", "many", COUNT),
    ("steps_per_task", 0, COUNT),
    ("steps_per_task", [10], COUNT),
    ("batch_size", 0, COUNT),
    ("batch_size", True, COUNT),
    ("single_lr", 0, POSITIVE),
    ("single_lr", "fast", POSITIVE),
    ("hnet_lr", 0, POSITIVE),
    ("hnet_lr", "fast", POSITIVE),
    ("direct_lr", -1e-3, POSITIVE),
    ("direct_lr", float("nan"), POSITIVE),
    ("direct_lr", None, POSITIVE),
    ("lr", 0.0, POSITIVE),
    ("lr", float("inf"), POSITIVE),
    ("lr", [1e-3], POSITIVE),
    ("token_lr_factor", 0, POSITIVE),
    ("damping", 0, POSITIVE),
    ("head_lr_factor", -1, POSITIVE),
    ("beta", -0.1, "expected a number of at least 0"),
    ("beta", "strong", "expected a number of at least 0"),
    ("beta", True, "expected a number of at least 0"),
    ("hnet_hidden", [], "expected layer sizes of at least 1"),
    ("hnet_hidden", [0], "expected layer sizes of at least 1"),
    ("hnet_hidden", [16, 2.5], "expected layer sizes of at least 1"),
    ("hnet_hidden", 16, "expected layer sizes of at least 1"),
    ("hnet_hidden", "[16, x]", "expected layer sizes of at least 1"),
    ("task_token_dim", 0, COUNT),
    ("task_token_dim", "8.5", COUNT),
    ("chunk_token_dim", 0, COUNT),
    ("num_chunks", 0, COUNT),
    ("num_chunks", 10**9, "expected at most one chunk for each of the target's"),
    ("target", 32, "expected a name"),
    ("target", "mlp", 'expected "mlp-<size>'),
    ("target", "mlp-0", 'expected "mlp-<size>'),
    ("target", ["mlp-32"], "expected a name"),
    ("snapshot", "sometimes", "expected one of before_task, at_learning"),
    ("snapshot", 1, "expected a name"),
    ("penalty", "some", "expected one of rows, tasks, all"),
    ("penalty_size", 0, COUNT),
    ("head_optimizer", "sgd", "expected one of adam, shortest_change, least_change"),
    ("hnet_activation", "tanh", "expected one of relu, elu, sine"),
    ("chunk_counts", [], "expected a list of whole numbers"),
    ("chunk_counts", [0, 1], "expected a list of whole numbers"),
    ("chunk_counts", 5, "expected a list of whole numbers"),
    ("chunk_counts", [10**9], "expected at most one chunk"),
    ("conv_chunk_counts", [], "expected a list of whole numbers"),
    ("conv_chunk_counts", [10**9], "expected a list of whole numbers from 1 to 100000"),
    ("num_permutations", 0, COUNT),
    ("num_tasks_compared", 0, COUNT),
    ("num_tasks_compared", "ten", COUNT),
    ("num_random_tokens", 0, COUNT),
    ("num_few_tasks", 1, "expected a whole number from 2 to 3"),
    ("num_few_tasks", 99, "expected a whole number from 2 to 3"),
    ("levels", [], "expected different numbers from 0 to 1, with 0 and 1"),
    ("levels", [0.0, 0.5], "expected different numbers from 0 to 1, with 0 and 1"),
    ("levels", [0.0, 1.0, 1.0], "expected different numbers from 0 to 1, with 0 and 1"),
    ("levels", [0.0, 1.5], "expected different numbers from 0 to 1, with 0 and 1"),
    ("levels", 0.5, "expected different numbers from 0 to 1, with 0 and 1"),
    ("tasks_per_level", 1, "expected a whole number of at least 2"),
    ("num_images", 0, COUNT),
    ("num_others", 0, "expected a whole number"),
    ("num_others", 2.5, "expected a whole number"),
    ("steps_of_others", 0, COUNT),
    ("steps_of_others", "few", COUNT),
    ("batch", 0, COUNT),
    ("bits", [], "expected a list of whole numbers"),
    ("bits", [0], "expected a list of whole numbers"),
    ("bits", "8", "expected a list of whole numbers"),
]
OF_ONE = [
    ("03", "num_tasks", 1, "expected a whole number of at least 2"),
    ("03", "num_tasks", 0, "expected a whole number of at least 2"),
    ("04", "num_tasks", 1, "expected a whole number of at least 2"),
    ("04", "num_tasks", "[2]", "expected a whole number of at least 2"),
    ("05", "num_tasks", 0, COUNT),
    ("06", "num_tasks", -1, COUNT),
    ("08", "num_tasks", 0, COUNT),
    ("08", "num_tasks", "five", COUNT),
    ("91", "num_tasks", 0, COUNT),
    ("93", "grid", 3, "expected settings as in"),
    ("93", "workers", 0, COUNT),
    ("09", "num_tasks", 1, "expected a whole number of at least 2"),
    ("09", "num_others", 6, "expected a whole number from 1 to 5"),
    ("10", "num_tasks", 0, COUNT),
    ("10", "num_others", 1, "expected a whole number of at least 2"),
    ("08", "num_chunks", 60_000, "expected at most one chunk for each of the target's"),
]


def parameters_of(source) -> str:
    (cell,) = [
        cell.source
        for cell in nbformat.read(source, as_version=4).cells
        if "parameters" in cell.metadata.get("tags", [])
    ]
    return cell


REFUSED = OF_ONE + [
    (source.name[:2], name, value, message)
    for source in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    for name, value, message in OF_ALL
    if re.search(rf"^{name} = ", parameters_of(source), re.MULTILINE)
]


@pytest.mark.parametrize(("number", "name", "value", "message"), REFUSED)
def test_is_refused_in_one_line_before_anything_trains(
    nothing_trains, number, name, value, message
):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        run(number, **{name: value})
    asked = {"chunk_counts": "(chunk_counts|num_chunks)", "hnet_lr": "(hnet_lr|lr)"}.get(name, name)
    assert re.match(rf"{asked}: ", str(error.value))
    assert "\n" not in str(error.value)


def test_every_parameter_is_in_the_table():
    tried = {(row[0], row[1]) for row in REFUSED}
    for source in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        for name in re.findall(r"^(\w+) = ", parameters_of(source), re.MULTILINE):
            assert (source.name[:2], name) in tried, f"{source.name}: {name}"


QUICK = [
    ("01", {"steps": 20, "hnet_hidden": "[16]"}),
    ("03", {"num_tasks": 2, **SHORT}),
    ("04", {"num_tasks": 2, "num_random_tokens": 1}),
    ("90", {"steps": 1}),
]
SLOW = [
    ("01", {"steps": 1}),
    ("05", {"num_tasks": 1, **SHORT}),
    ("05", {"num_tasks": 2, "hnet_hidden": "16 16", "beta": 0, **SHORT}),
    ("06", {"num_tasks": 1, "num_tasks_compared": 1}),
    ("01", {"steps": 100, "batch_size": 1, "task_token_dim": 1, "seed": 2**63 - 1}),
    ("01", {"steps": 7, "hnet_hidden": [1], "hnet_lr": "1e-3"}),
    ("02", {"steps": 1, "chunk_counts": [1], "conv_chunk_counts": [1]}),
    ("02", {"steps": 2, "chunk_counts": "[3]", "task_token_dim": "4", "target": "conv-lenet"}),
    ("03", {"steps_per_task": 1, "num_permutations": 1}),
    ("03", {"num_tasks": 7, "num_permutations": 99, **SHORT}),
    ("04", {"num_tasks": 4, "num_few_tasks": 4, "num_random_tokens": 3}),
    ("04", {"num_few_tasks": 2, "permutation_seed": 2**63 - 1}),
    ("05", {"steps_per_task": 1, "batch_size": 1, "num_chunks": 1, "penalty_size": 1}),
    ("05", {"target": "mlp-50", "num_tasks_compared": 2, **SHORT}),
    ("05", {"target": "conv-lenet", "snapshot": "at_learning", "penalty": "all", **SHORT}),
    ("05", {"head_optimizer": "adam", "penalty": "tasks", "penalty_size": 99, **SHORT}),
    ("05", {"head_optimizer": "shortest_change", **SHORT}),
    ("05", {"profile": "smoke-plain", "num_tasks": 12, "beta": "0.5", **SHORT}),
    ("06", {"num_tasks": 2, "num_tasks_compared": 99}),
    ("07", {"levels": [0, 1], "tasks_per_level": 2, "bits": [1], "num_images": 1, **SHORT}),
    ("07", {"levels": "[1, 0, 0.5]", "num_images": 10**6, "bits": "[16]", **SHORT}),
    ("07", {"steps_per_task": 1, "token_lr_factor": 1}),
    ("08", {"num_tasks": 1, "steps": 1, "num_images": 1, **SHORT}),
    ("08", {"num_tasks": 12, "steps": "2", "batch_size": 1, "beta": 0, **SHORT}),
    ("08", {"steps": 9, "hnet_hidden": "[1]", "num_chunks": 1, "num_images": 10**6, **SHORT}),
    ("08", {"steps": 1, "permutation_seed": 2**63 - 1, **SHORT}),
    ("09", {"num_tasks": 2, "num_others": 1, "steps_per_task": 1}),
    ("09", {"num_tasks": 5, "num_others": 5, "permutation_seed": 2**63 - 1, **SHORT}),
    ("09", {"profile": "smoke-plain", "num_tasks": "2", "seed": 2**63 - 1, **SHORT}),
    ("10", {"num_tasks": 1, "num_images": 1, "batch": 1, "steps_of_others": 1}),
    ("10", {"num_tasks": 6, "num_images": 10**6, "num_others": 2, "steps_of_others": 2}),
    ("90", {"steps": 3, "seed": "5"}),
    ("93", {"grid": "beta=0,1 num_tasks=2"}),
    ("92", {"num_tasks_compared": 1}),
    ("92", {"num_tasks_compared": "99"}),
    ("91", {"num_tasks": 1}),
    ("91", {"num_tasks": "12", "seed": 2**63 - 1}),
]


@pytest.mark.parametrize(
    ("number", "parameters"), QUICK + [pytest.param(*row, marks=pytest.mark.slow) for row in SLOW]
)
@pytest.mark.filterwarnings("error::RuntimeWarning")  # means of nothing
def test_works(number, parameters):
    run(number, **parameters)


@pytest.mark.parametrize("value", ["[16]", "16 16", "[16, 8]"])
@pytest.mark.slow
def test_lists_by_plain_papermill(tmp_path, value):
    source = ROOT / "notebooks" / "01_single_task.ipynb"
    settings = ["-p", "profile", "smoke", "-p", "dataset", "mnist5k", "-p", "steps", "2"]
    command = [sys.executable, "-m", "papermill", "--cwd", str(source.parent), "-k", "python3"]
    command += [str(source), str(tmp_path / "out.ipynb"), *settings, "-p", "hnet_hidden", value]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-1000:]


def test_chapter_5_compares_like_with_like_and_follows_its_parameters():
    names = run("05", target="mlp-50", beta=0, num_tasks=2, **SHORT)
    assert {names[run].target for run in ("config", "regularised", "ours_free")} == {"mlp-50"}
    assert set(names["compared"]) == {"shortest change, beta 0"}
    names = run("91", num_tasks=2)
    assert names["networks"] == 2 * names["config"].num_weights


@pytest.mark.parametrize("number", ["04", "05", "06"])
@pytest.mark.slow
def test_a_profile_that_evaluates_rarely_shows_no_nan(number, monkeypatch):
    """R is shown whole: every task is evaluated after every task, whatever the profile says."""
    from hnetlib.experiment.profiles import PROFILES

    said = []
    monkeypatch.setitem(PROFILES, "smoke", PROFILES["smoke"] | {"eval_every": 2})
    monkeypatch.setitem(PROFILES, "smoke-plain", PROFILES["smoke-plain"] | {"eval_every": 2})
    monkeypatch.setattr("hnetlib.notebook.say", said.append)
    monkeypatch.setattr("hnetlib.notebook.headline", lambda *texts, source="": said.extend(texts))
    run(number)
    assert said
    assert "nan" not in " ".join(said)
