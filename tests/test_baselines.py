"""Baselines: each learns, resumes and repeats; each remembers what its kind can, and no more."""

import numpy as np
import pytest
import torch

from hnetlib.experiment.baselines import JointLearner, SeparateLearner
from hnetlib.experiment.data import load_data
from hnetlib.experiment.learner import learner_class, train_or_load
from hnetlib.experiment.profiles import BASELINES
from hnetlib.experiment.tasks import PermutedTasks, seeded_generator, shuffled_batches

SETTINGS = {"lr": 1e-2, "steps_per_task": 100, "num_tasks": 4}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Every method on four tasks."""
    from hnetlib.experiment.config import make_config

    strengths = {"ewc": 30.0, "ewc-multihead": 300.0, "si": 5.0, "si-multihead": 5.0}
    place = tmp_path_factory.mktemp("baselines")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HNETLIB_RUNS", str(place / "runs"))
        patch.setenv("HNETLIB_LOGS", str(place / "logs"))
        found = {}
        for method in BASELINES:
            settings = SETTINGS | {"strength": strengths.get(method, 1.0)}
            config = make_config("smoke-plain", "mnist5k", threads=1, method=method, **settings)
            found[method] = train_or_load(config, progress=False).results
    return found


@pytest.mark.parametrize("method", ["joint-hnet", "joint-plain", "joint-multihead", "separate"])
def test_what_sees_each_task_in_full_knows_them_all(results, method):
    assert results[method]["acc"] > 0.85


def test_fine_tuning_forgets_and_importance_helps(results):
    lost = results["fine-tuning"]
    assert lost["learning_acc"] > 0.85
    assert lost["bwt"] < -0.12
    for method in ("ewc", "si", "ewc-multihead", "si-multihead"):
        assert results[method]["bwt"] > lost["bwt"] + 0.1, method
        assert results[method]["acc"] > lost["acc"], method


def test_every_row_says_what_it_stores(results):
    plain, head, heads = 25450, 33 * 10, 33 * 10 * 4
    assert results["fine-tuning"]["trainable"] == plain
    assert results["ewc"]["stored_train"] == 2 * plain
    assert results["si-multihead"]["trainable"] == plain - head + heads
    assert results["si-multihead"]["stored_train"] == 3 * (plain - head + heads)
    assert results["separate"]["trainable"] == 4 * plain
    assert results["joint-plain"]["stored_train"] == 0


def test_joint_methods_have_no_order_and_separate_ones_no_forgetting(results):
    assert results["joint-plain"]["bwt"] is None
    assert np.isnan(np.array(results["joint-plain"]["R"], dtype=float)[:-1]).all()
    assert results["separate"]["bwt"] == 0
    assert results["separate"]["learning_acc"] == results["separate"]["acc"]


@pytest.mark.parametrize("method", ["ewc", "si-multihead", "joint-hnet", "separate"])
def test_stopped_and_resumed_is_as_never_stopped(tiny, assert_resumes, method):
    assert_resumes(tiny(method=method, num_tasks=4), learner_class(method))


def test_separate_is_each_network_on_its_own_task(tiny):
    """The reordered columns against plain training on the permuted images, batch for batch."""
    config = tiny(method="separate", num_tasks=3, steps_per_task=30)
    tasks = PermutedTasks(load_data("mnist5k"), 3)
    learner = SeparateLearner(config, tasks)
    start = learner.build()
    for part in range(3):
        learner.learn_task(part)
    order, data = tasks.permutation(2), tasks.as_data(2)
    weights = {name: value.detach().clone() for name, value in start(2).items()}
    weights["layers.0.weight"] = weights["layers.0.weight"][:, order]
    for value in weights.values():
        value.requires_grad_(True)
    optimizer = torch.optim.Adam(weights.values(), lr=config.lr)
    for part in range(3):
        batches = shuffled_batches(
            len(data.train_labels), config.batch_size, 10, seeded_generator(config.seed, part)
        )
        for number, indices in enumerate(batches, start=10 * part):
            optimizer.param_groups[0]["lr"] = config.lr * learner.rate(number / 30)
            logits = start.run_target(weights, data.train_images[indices])
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(logits, data.train_labels[indices]).backward()
            optimizer.step()
    for name, value in learner.network(2).items():
        assert torch.allclose(value, weights[name], atol=1e-4), name


def test_a_joint_batch_shows_drawn_tasks_their_own_order(tiny, monkeypatch):
    """The images a joint method runs are whole images of the data, in the drawn tasks' orders."""
    import hnetlib.experiment.baselines as module

    config = tiny(method="joint-plain", num_tasks=5, tasks_per_batch=2, steps_per_task=3)
    tasks = PermutedTasks(load_data("mnist5k"), 5)
    seen, run = [], module.run_tasks

    def spy(network, drawn, images):
        seen.append((drawn, images))
        return run(network, drawn, images)

    monkeypatch.setattr(module, "run_tasks", spy)
    JointLearner(config, tasks).learn_task(1)
    known = {tuple(image) for image in tasks.data.train_images.tolist()}
    for drawn, images in seen:
        assert len(set(drawn.tolist())) == 2
        assert images.shape == (2, config.batch_size // 2, 784)
        for task, some in zip(drawn.tolist(), images, strict=True):
            back = some[:, tasks.permutation(task).argsort()]
            assert all(tuple(image) in known for image in back.tolist())
