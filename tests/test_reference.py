"""The committed results: summary, runs and README say the same."""

import json

import numpy as np
import pytest

from hnetlib.experiment import data, evaluation, paths, profiles, sweep, tracking
from hnetlib.experiment.config import Config, defaults
from hnetlib.experiment.learner import train_or_load

ROOT = paths.PACKAGE.parent
REFERENCE = ROOT / "report" / "reference" / "laptop"
ROWS = json.loads((REFERENCE / "summary.json").read_text())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["recorded_as"])
def test_each_row_is_the_mean_of_its_recorded_runs(row):
    files = sorted((REFERENCE / "runs").glob(f"{row['recorded_as']}-s[0-9].json"))
    runs = [json.loads(file.read_text()) for file in files]
    assert len(runs) == row["n_seeds"]
    matrices = [np.array(run["results"]["R"], dtype=float) for run in runs]
    assert all(R.shape == (row["num_tasks"], row["num_tasks"]) for R in matrices)
    assert row["acc_mean"] == pytest.approx(np.mean([R[-1].mean() for R in matrices]))
    if not np.isnan(matrices[0][0, 0]):  # tasks were learned one after the other
        for metric in ("learning_acc", "bwt", "forgetting"):
            recomputed = np.mean([evaluation.metrics(R)[metric] for R in matrices])
            assert row[f"{metric}_mean"] == pytest.approx(recomputed)
    assert all(run["config"]["split"] == "test" for run in runs)
    assert all(run["config"]["seed"] == run["config"]["permutation_seed"] for run in runs)


@pytest.mark.parametrize(
    ("profile", "method"),
    [
        ("tokens-large", "hnet"),
        ("tokens", "hnet"),
        ("tokens-small", "hnet"),
        ("laptop", "hnet"),
        ("laptop", "separate-converged"),
        ("laptop", "separate"),
    ],
)
def test_the_readme_quotes_the_summary(profile, method):
    rows = json.loads((REFERENCE.parent / profile / "summary.json").read_text())
    (row,) = [r for r in rows if r["method"] == method and r["size"] in (None, "target")]
    spread = f" ± {100 * row['acc_std']:.2f}" if row["acc_std"] is not None else ""
    bwt = "0" if row["bwt_mean"] == 0 else f"{100 * row['bwt_mean']:+.2f}"
    quoted = f"| {100 * row['acc_mean']:.2f}{spread} | {bwt} | {row['stored_eval']:,} |"
    assert f"{quoted} {row['n_seeds']} |" in (ROOT / "README.md").read_text()


def test_the_readme_quotes_what_is_smaller_than_its_target():
    (row,) = json.loads((REFERENCE.parent / "standard" / "summary.json").read_text())
    quoted = f"keeps {100 * row['acc_mean']:.2f} ± {100 * row['acc_std']:.2f} % (`standard`)"
    assert quoted in " ".join((ROOT / "README.md").read_text().split())


@pytest.fixture
def small_reference(monkeypatch, tmp_path, tiny):
    """The script that makes the reference, on two tiny runs and into a directory of its own."""
    from report import reference

    def planned(profile):
        for seed in (0, 1):
            yield "hnet", tiny(seed=seed, permutation_seed=seed)

    digits = data.load_data("mnist5k")
    monkeypatch.setattr(reference, "planned", planned)
    monkeypatch.setattr(reference, "ALL_LOGGED", (tiny().profile,))
    monkeypatch.setattr(reference, "load_data", lambda *_: digits)
    monkeypatch.setattr(paths, "reference_dir", lambda profile: tmp_path / "reference" / profile)
    monkeypatch.setattr(paths, "reference_logs_dir", lambda: tmp_path / "logs" / "reference")
    return reference


def test_the_reference_is_trained_recorded_and_not_trained_again(
    small_reference, tiny, monkeypatch, capsys
):
    assert small_reference.main(["--no-train"]) == 1
    assert "no finished run" in capsys.readouterr().err
    train_or_load(tiny(), progress=False)
    assert small_reference.main(["--no-train"]) == 0
    place = paths.reference_dir("laptop")
    (row,) = json.loads((place / "summary.json").read_text())
    assert (row["n_seeds"], row["acc_std"]) == (1, None)
    assert small_reference.main([]) == 0
    (row,) = json.loads((place / "summary.json").read_text())
    assert row["n_seeds"] == 2
    both = [json.loads((place / "runs" / f"hnet-s{seed}.json").read_text()) for seed in (0, 1)]
    assert row["acc_mean"] == pytest.approx(np.mean([run["results"]["acc"] for run in both]))
    assert (place / "retention.png").stat().st_size > 1000
    logs = [small_reference.log_directory(run) / tracking.FILE_NAME for run in both]
    written = [log.read_bytes() for log in logs]
    assert all(b"train/penalty" in log for log in written), "curves from the checkpoint"

    def train(config):
        raise AssertionError("trained again")

    monkeypatch.setattr(sweep, "train_or_load", train)
    logs[1].unlink()
    assert small_reference.main([]) == 0
    assert capsys.readouterr().out.count("recorded already") == 3
    assert [log.read_bytes() for log in logs] == written


def test_a_busy_machine_gives_no_seconds_and_another_makes_no_other_run(
    small_reference, tiny, monkeypatch, capsys
):
    assert small_reference.main(["--untimed", "--jobs", "1"]) == 0
    (row,) = json.loads((paths.reference_dir("laptop") / "summary.json").read_text())
    assert (row["n_seeds"], row["train_seconds_mean"]) == (2, None)
    elsewhere = [("hnet", tiny(seed=s, permutation_seed=s, threads=3)) for s in (0, 1)]
    monkeypatch.setattr(small_reference, "planned", lambda profile: elsewhere)
    assert small_reference.main(["--no-train"]) == 0
    assert capsys.readouterr().out.count("recorded already") == 2


def test_methods_without_an_order_have_a_row_without_what_needs_one(
    small_reference, tiny, monkeypatch
):
    asked = [("joint-plain", tiny(method="joint-plain")), ("hnet", tiny())]
    monkeypatch.setattr(small_reference, "planned", lambda profile: asked)
    assert small_reference.main(["--methods", "joint-plain"]) == 0
    (row,) = json.loads((paths.reference_dir("laptop") / "summary.json").read_text())
    assert (row["method"], row["size"], row["bwt_mean"]) == ("joint-plain", "target", None)
    assert row["stored_train"] == 0
    assert row["acc_mean"] > 0.3


@pytest.mark.parametrize("profile", ["laptop", "laptop-brief", "published10", "original"])
def test_methods_start_from_the_winners_of_the_search(profile):
    from report import search

    place = paths.reference_dir(profile) / "search.json"
    recorded = json.loads(place.read_text())

    class NoTraining(search.Search):
        def make(self, asked):
            assert all(self.acc(*one) is not None for one in asked)

    chosen_by = NoTraining(profile, place)
    methods = {row["method"] for row in recorded} & chosen_by.plan.keys()
    found = {method: chosen_by.choose(method) for method in methods}
    found |= chosen_by.refine(search.REFINED.get(profile, ()))
    for method, settings in found.items():
        name = method.removesuffix(profiles.MATCHED_SIZE)
        matched = name != method
        chosen = profiles.MATCHED[name] if matched else defaults(profile, "mnist", name)
        if matched and profile == "laptop":
            chosen = chosen | profiles.MATCHED_ALL_STEPS.get(name, {})
        used = Config().as_dict() | chosen
        assert settings.items() <= used.items(), method


def test_around_laptops_own_settings_none_is_better_by_more_than_seeds_differ():
    from report import search

    recorded = json.loads((paths.reference_dir("laptop") / "search.json").read_text())
    around = {json.dumps(r["settings"]): r["acc"] for r in recorded if r["method"] == "hnet"}
    settings = search.AROUND["laptop"]
    own = {name: values[0] for name, values in settings.items()}
    assert own.items() <= Config(**defaults("laptop", "mnist")).as_dict().items()
    tried = [own] + [own | {name: v} for name, values in settings.items() for v in values[1:]]
    assert around.keys() == {json.dumps(one) for one in tried}
    summary = json.loads((paths.reference_dir("laptop") / "summary.json").read_text())
    (hnet,) = [row for row in summary if row["recorded_as"] == "hnet"]
    assert max(around.values()) - around[json.dumps(own)] < hnet["acc_std"]


def test_the_readme_quotes_what_is_found_untold():
    rows = json.loads((REFERENCE.parent / "tokens" / "untold.json").read_text())
    readme = " ".join((ROOT / "README.md").read_text().split())
    by_weights = [row for row in rows if row["rule"] == "light on energy"]
    images = sum(row["num_tasks"] * row["num_images"] for row in by_weights)
    assert all(row["task"] == 1.0 for row in by_weights)
    assert f"in each of {images:,} test images" in readme
    by_logit = [row for row in rows if row["rule"] == "max logit"]
    largest, told = (np.mean([row[name] for row in by_logit]) for name in ("label", "told"))
    said = f"{by_logit[0]['num_images']} images per task; told: {100 * told:.2f} %"
    assert f"{100 * largest:.2f} % of the classes are right ({said})" in readme
