"""Runs whose tokens carry the task: settings, resuming, what is stored, tasks in any order."""

import copy

import numpy as np
import pytest
import torch

from hnetlib.experiment import apart, evaluation, hnets
from hnetlib.experiment.config import Config
from hnetlib.experiment.data import load_data
from hnetlib.experiment.hnet_learner import Learner
from hnetlib.experiment.hnets import load_hnet
from hnetlib.experiment.learner import learner_class, train_or_load
from hnetlib.experiment.profiles import methods
from hnetlib.experiment.tasks import PermutedTasks

SMALL = {
    "num_tasks": 4,
    "steps_per_task": 40,
    "first_task_factor": 3,
    "batch_size": 64,
    "target": "mlp-24",
    "pixels_with_token": 300,
    "eval_every": 4,
}


@pytest.fixture
def carried(tiny):
    def make(**settings):
        return tiny("tokens-small", **SMALL | settings)

    return make


def test_learns_each_task_and_forgets_none(carried):
    run = train_or_load(carried(), progress=False)
    R, results = run.matrix, run.results
    assert results["bwt"] == 0
    assert results["forgetting"] == 0
    assert results["acc"] > 0.5
    assert np.array_equal(R.diagonal(), R[-1])
    assert np.isnan(R[2, 0])


def test_says_all_that_is_stored(carried):
    results = train_or_load(carried(), progress=False).results
    tokens, generator = 4 * 300 * 4, 4 * 40 + 40 + 40 * 24 + 24
    shared = 24 + 24 * 10 + 10
    assert results["trainable"] == tokens + generator + shared
    which, start = 4 * 784 / 32, 2
    assert results["stored_eval"] == results["trainable"] + which + start
    assert results["stored_train"] == 0


@pytest.mark.parametrize("settings", [{}, {"generator_tasks": 3, "pixels_with_token": 0}])
def test_stopped_and_resumed_is_as_never_stopped(carried, assert_resumes, settings):
    assert_resumes(carried(**settings), Learner)


def test_tasks_in_any_order_and_apart_end_with_the_same_bytes(carried):
    config = carried()
    first = Learner(config, PermutedTasks(load_data("mnist5k"), config.num_tasks))
    first.learn_task(0)
    ends = []
    for order in ((1, 2, 3), (3, 2, 1), (2,)):
        learner = copy.deepcopy(first)
        for task in order:
            learner.learn_task(task)
        ends.append(learner.hnet.task_tokens)
    for task in (1, 2, 3):
        assert torch.equal(ends[0][task], ends[1][task])
    assert torch.equal(ends[0][2], ends[2][2])


def test_pixels_with_a_token_are_those_that_vary_most(carried):
    config = carried(num_tasks=2, steps_per_task=2)
    hnet = load_hnet(train_or_load(config, progress=False))
    tasks = PermutedTasks(load_data("mnist5k"), 2)
    varied = tasks.as_data(1).train_images.std(0)
    chosen = hnet.selections.of(1)
    assert chosen.sum() == 300
    assert varied[chosen].min() >= varied[~chosen].max()


def test_narrow_steps_are_those_of_whole_images(carried):
    config = carried(num_tasks=2)
    tasks = PermutedTasks(load_data("mnist5k"), 2)
    learner = Learner(config, tasks)
    images, labels = learner._batches(1)(torch.arange(8))
    hnet = learner.hnet
    assert images.shape == (8, 300)
    narrow = {"layers.0.weight": hnet.chunks_of(1).T}
    whole, _ = tasks.batch(tasks.permutation(1), torch.arange(8))
    torch.testing.assert_close(hnet.run_target(narrow, images), hnet.run(whole, task=1))
    assert labels.shape == (8,)


def test_evaluated_one_by_one_or_together_is_about_the_same(carried):
    hnet = load_hnet(train_or_load(carried(), progress=False))
    tasks = PermutedTasks(load_data("mnist5k"), 4)
    alone, together = (evaluation.evaluate_task_aware(hnet, tasks, 4, 0, n) for n in (1, 4))
    assert alone == pytest.approx(together, abs=0.01)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cut": "layers.0.weight"}, "cut: expected flat, or name:dimension"),
        ({"cut": "layers.9.weight:1"}, "cut: expected names of generated parameters"),
        ({"cut": "layers.0.weight:2"}, "layers.0.weight has 2 dimensions"),
        ({"cut": "layers.0.weight:0"}, "pixels_with_token: expected 0, or tokens chunk"),
        ({"tokens": "task"}, "pixels_with_token: expected 0, or tokens chunk"),
        ({"pixels_with_token": 785}, "pixels_with_token: expected at most the 784"),
        ({"generator_tasks": 0}, "generator_tasks: expected 1 with pixels_with_token, got 0"),
        ({"generator_tasks": 2}, "generator_tasks: expected 1 with pixels_with_token, got 2"),
        ({"snapshot": "at_learning"}, "snapshot: expected before_task with pixels_with_token"),
        ({"frequency": -1.0}, "frequency: expected a number of at least 0"),
        ({"hnet_activation": "relu"}, "frequency: expected 0 where"),
        ({"head_optimizer": "least_change"}, "head_optimizer: expected adam with tokens chunk"),
        ({"token_lr_factor": 0}, "token_lr_factor: expected a number above 0"),
        ({"label_smoothing": 1}, "label_smoothing: expected a number from 0 to below 1"),
    ],
)
def test_what_does_not_go_together_is_one_line(carried, settings, message):
    with pytest.raises(ValueError, match=message) as caught:
        carried(**settings)
    assert "\n" not in str(caught.value)


def test_other_parameters_can_have_tokens_too():
    config = Config(
        target="mlp-24",
        cut="layers.0.weight:1 layers.2.weight:0",
        tokens="chunk",
        hnet_activation="sine",
    )
    assert config.generate == ["layers.0.weight", "layers.2.weight"]


def test_processes_leave_the_same_bytes_as_one_after_the_other(carried, tmp_path, monkeypatch):
    monkeypatch.setattr(apart, "TASKS_A_JOB", 1)
    config = carried(steps_per_task=10)
    one, two = (apart.learn_apart(config, tmp_path / str(n), n) for n in (1, 2))
    run = train_or_load(config, progress=False)
    whole = load_hnet(run).state_dict()
    for learner in (one, two):
        state = learner.hnet.state_dict()
        assert state.keys() == whole.keys()
        assert all(torch.equal(state[name], whole[name]) for name in whole)
    assert [two.accuracies[task] for task in (1, 2, 3)] == run.matrix[-1, 1:].tolist()


def test_what_depends_on_each_other_is_not_learned_apart(tiny, tmp_path):
    with pytest.raises(ValueError, match="generator_tasks: expected 1 to 3, got 0"):
        apart.learn_apart(tiny(), tmp_path)


def test_a_place_keeps_the_tasks_of_one_setting_and_takes_more_of_them(carried, tmp_path):
    few = apart.learn_apart(carried(steps_per_task=10, num_tasks=2), tmp_path)
    more = apart.learn_apart(carried(steps_per_task=10, num_tasks=3), tmp_path)
    assert few.accuracies.items() < more.accuracies.items()
    with pytest.raises(ValueError, match="the same settings, got others: steps_per_task, seed"):
        apart.learn_apart(carried(steps_per_task=11, seed=5), tmp_path)


def test_tasks_that_another_generator_taught_are_not_mixed_in(carried, tmp_path):
    apart.learn_apart(carried(steps_per_task=10), tmp_path)
    (tmp_path / "taught.pt").unlink()  # as one does who wants to begin anew
    with pytest.raises(ValueError, match=r"task-1\.pt to be of the settings and the generator in"):
        apart.learn_apart(carried(steps_per_task=10, seed=5), tmp_path)
    with pytest.raises(ValueError, match="method: expected hnet, got ewc"):
        apart.learn_apart(carried(method="ewc"), tmp_path)
    again = apart.learn_apart(carried(steps_per_task=10), tmp_path / "other")
    (tmp_path / "other" / "taught.pt").unlink()
    (tmp_path / "other" / "task-2.pt").write_bytes(b"half")
    same = apart.learn_apart(carried(steps_per_task=10), tmp_path / "other")
    assert same.accuracies == again.accuracies


def test_what_is_damaged_is_learned_again_and_another_tasks_file_is_named(carried, tmp_path):
    config = carried(steps_per_task=10, num_tasks=3)
    whole = apart.learn_apart(config, tmp_path)
    taught = tmp_path / "taught.pt"
    taught.write_bytes(taught.read_bytes()[:500])
    again = apart.learn_apart(config, str(tmp_path))
    now = again.network.state_dict()
    assert all(torch.equal(value, now[n]) for n, value in whole.network.state_dict().items())
    assert [path.name for path in tmp_path.glob("taught*damaged*")]
    (tmp_path / "task-2.pt").write_bytes((tmp_path / "task-1.pt").read_bytes())
    with pytest.raises(ValueError, match=r"expected task-2.pt to be of that task, got 1"):
        apart.learn_apart(config, tmp_path)


def test_the_trained_one_is_kept_in_half_precision(carried, tmp_path, monkeypatch):
    run = train_or_load(carried(), progress=False)
    hnet = load_hnet(run)
    monkeypatch.setattr(hnets.paths, "reference_dir", lambda profile: tmp_path / profile)
    hnets.save(hnet, run.config)
    loaded = hnets.load("tokens-small")
    assert loaded.generator_frozen
    for task in range(4):
        assert torch.equal(loaded.selections.of(task), hnet.selections.of(task))
        torch.testing.assert_close(
            loaded.task_tokens[task], hnet.task_tokens[task], rtol=1e-3, atol=1e-3
        )


@pytest.mark.parametrize("profile", ["tokens-small", "tokens", "tokens-large"])
def test_every_method_can_be_asked_for_with_these_profiles(tiny, profile):
    for method in methods():
        assert tiny(profile, method=method).method == method


@pytest.mark.parametrize("method", ["hnet", "ewc", "joint-plain", "separate"])
def test_smoothed_labels_are_learned_by_all_methods(tiny, method):
    logged = []
    for smoothing in (0.0, 0.5):
        config = tiny("smoke-plain", method=method, num_tasks=1, label_smoothing=smoothing)
        tasks = PermutedTasks(load_data("mnist5k"), 1)
        learner = learner_class(method)(config, tasks, log_every=100)
        learner.learn_task(0, lambda tag, value, step: logged.append((tag, value)))
    plain, smooth = (value for tag, value in logged if tag == "train/cross_entropy")
    assert plain != smooth
