"""TensorBoard logs: what they say is what the run's files say, and nothing of the machine."""

import io
import json
import socket

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from hnetlib.experiment import paths, runs, tracking
from hnetlib.experiment.learner import train_or_load
from report import reference

ROOT = paths.PACKAGE.parent


RECORDED = sorted((ROOT / "report" / "reference").glob("*/runs/*.json"))
LOGGED = [file for file in RECORDED if reference.is_logged(json.loads(file.read_text()))]
LARGEST_REFERENCE = 5_000_000  # bytes of all committed logs
MOST_RUNS = 40  # of which TensorBoard shows the curves without being asked


def read(directory):
    return EventAccumulator(str(directory), size_guidance={"scalars": 0}).Reload()


def points(log):
    return {
        (tag, point.step): point.value
        for tag in log.Tags()["scalars"]
        for point in log.Scalars(tag)
    }


def expected(history, results, R):
    final = {
        (f"final/{name}", len(R)): value
        for name, value in results.items()
        if isinstance(value, (int, float))
    }
    return {(tag, step): value for tag, value, step in history} | final


def hparams(directory):
    """What the file has for the HPARAMS tab: each message by its tag, in order."""
    (file,) = directory.iterdir()
    return [
        (value.tag, value.metadata.plugin_data.content)
        for event in EventFileLoader(str(file)).Load()
        for value in event.summary.value
        if value.metadata.plugin_data.plugin_name == metadata.PLUGIN_NAME
    ]


def settings_in(directory):
    data = HParamsPluginData.FromString(dict(hparams(directory))[metadata.SESSION_START_INFO_TAG])
    values = data.session_start_info.hparams
    return {name: getattr(value, value.WhichOneof("kind")) for name, value in values.items()}


def as_logged(config):
    return {
        name: ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value
        for name, value in config.items()
    }


def test_the_log_of_a_run_says_what_its_files_say(tiny, monkeypatch, tmp_path):
    monkeypatch.setattr(socket, "gethostname", lambda: "name-of-this-host")
    run = train_or_load(tiny(), progress=False)
    history = run.load_checkpoint()["history"]
    metrics = {name: run.results[name] for name in ("acc", "learning_acc", "bwt", "forgetting")}
    log = read(run.log_dir)
    assert points(log) == pytest.approx(expected(history, metrics, run.matrix))
    prefixes = {tag.split("/")[0] for tag in log.Tags()["scalars"]}
    assert prefixes == {"train", "tasks", "final"}
    (table,) = log.Tensors("config")[0].tensor_proto.string_val
    assert "| hnet_hidden | 32, 32 |" in table.decode().splitlines()
    (file,) = run.log_dir.iterdir()
    assert file.name == "events.out.tfevents"
    for private in ("name-of-this-host", str(tmp_path), str(ROOT)):
        assert private.encode() not in file.read_bytes()


def test_the_picture_of_R_tells_not_learned_from_accuracy_0():
    R = np.tril(np.zeros((100, 100)))
    R[np.triu_indices(100, 1)] = np.nan
    R[:, 0] = 1.0
    png, size = tracking.picture(R)
    image = Image.open(io.BytesIO(png)).convert("RGB")
    assert image.size == size
    assert min(size) >= 600
    pixels = np.asarray(image).reshape(-1, 3)
    dark = (pixels == (68, 1, 84)).all(1).mean()  # viridis at its lowest
    white = (pixels == 255).all(1).mean()
    assert 0.2 < dark < 0.4, "half of the matrix"
    assert white > 0.3


def test_the_hparams_tab_has_each_run_once(tiny):
    run = train_or_load(tiny(look_ahead=True, steps_per_task=2), progress=False)
    tags = [tag for tag, _ in hparams(run.log_dir)]
    assert tags == [metadata.SESSION_START_INFO_TAG, metadata.SESSION_END_INFO_TAG]
    settings = settings_in(run.log_dir)
    assert settings == {"method": "hnet", **as_logged(run.config.as_dict())}
    assert settings["look_ahead"] is True


def record(directory, **changes):
    """A finished run of a method with settings of its own, as it might be written down."""
    R = np.array([[0.9, np.nan], [0.8, 0.7]])
    config = {"profile": "some", "seed": 3, "strength": 1e3, "heads": None, "sizes": [4, 5]}
    results = {"acc": 0.75, "bwt": -0.1, "R": runs.matrix_rows(R), "note": "text"}
    given = {"config": config, "results": results, "date": "2026-01-02", **changes}
    tracking.write_log(directory, "ewc", **given)
    return R, config, results


def test_a_recorded_run_gives_its_log_and_the_same_bytes_again(tmp_path):
    R, config, results = record(tmp_path / "one")
    log = read(tmp_path / "one")
    curves = tracking.curves_of(R)
    assert ("tasks/accuracy", 0.75, 2) in curves
    assert points(log) == pytest.approx(expected(curves, results, R))
    del config["heads"]  # None: a setting that the run does not have
    assert settings_in(tmp_path / "one") == {"method": "ewc", **as_logged(config)}
    record(tmp_path / "two")
    one, two = (tmp_path / name / tracking.FILE_NAME for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    record(tmp_path / "two", history=[("train/penalty", 0.5, 50)])
    assert ("train/penalty", 50) in points(read(tmp_path / "two"))
    assert two.parent.exists()
    assert [file.name for file in two.parent.iterdir()] == [tracking.FILE_NAME]


def test_settings_are_written_in_one_order_by_every_process(tmp_path):
    """Within one process any order repeats itself, so the order itself is what is looked at."""
    record(tmp_path, config={f"setting_{number}": number for number in range(40)})
    content = dict(hparams(tmp_path))[metadata.SESSION_START_INFO_TAG]
    names = [content.index(f"setting_{number}".encode()) for number in range(10, 40)]
    assert names == sorted(names)


def test_a_resumed_log_is_what_the_history_says(tiny):
    run = runs.Run(tiny(), "data")
    run.log_dir.mkdir(parents=True)
    (run.log_dir / "events.out.tfevents.123.host.45.0").write_bytes(b"an older version's")
    killed = tracking.Tracker(run)
    for step in range(8):
        killed.add("train/penalty", step / 10, step)
    assert len(points(read(run.log_dir))) == 8, "a reader sees it while the run goes on"
    file = run.log_dir / tracking.FILE_NAME
    opened = file.stat().st_ino
    resumed = tracking.Tracker(run, killed.history[:5])
    resumed.add("train/penalty", 0.9, 5)
    said = {(tag, step): value for tag, value, step in resumed.history}
    assert points(read(run.log_dir)) == pytest.approx(said)
    assert len(read(run.log_dir).Scalars("train/penalty")) == 6
    assert file.stat().st_ino == opened, "a TensorBoard that has it open would lose it"
    assert list(run.log_dir.iterdir()) == [file]


def test_the_curves_over_tasks_follow_from_R(tiny):
    run = train_or_load(tiny(), progress=False)
    history = run.load_checkpoint()["history"]
    logged = [point for point in history if point[0].startswith("tasks/")]
    assert tracking.curves_of(run.matrix) == logged


@pytest.mark.parametrize("file", LOGGED, ids=lambda file: file.stem)
def test_each_committed_log_says_what_is_recorded(file):
    recorded = json.loads(file.read_text())
    directory = reference.log_directory(recorded)
    R = np.array(recorded["results"]["R"], dtype=float)
    logged = points(read(directory))
    training = {key for key in logged if key[0].startswith("train/")}
    said = expected(tracking.curves_of(R), recorded["results"], R)
    assert {key: logged[key] for key in logged.keys() - training} == pytest.approx(said)
    settings = as_logged(recorded["config"]) | {"method": recorded["method"]}
    assert settings_in(directory) == settings


def test_committed_logs_are_few_small_and_say_nothing_of_a_machine():
    there = {file for file in paths.reference_logs_dir().rglob("*") if file.is_file()}
    directories = {reference.log_directory(json.loads(file.read_text())) for file in LOGGED}
    assert len(directories) <= MOST_RUNS
    assert there == {directory / tracking.FILE_NAME for directory in directories}
    assert sum(file.stat().st_size for file in there) < LARGEST_REFERENCE
    private = (b"/home/", b"/root/", b"/tmp/", b"/Users/")
    for content in (file.read_bytes() for file in there):
        assert not [part for part in private if part in content]
