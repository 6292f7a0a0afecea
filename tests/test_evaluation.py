"""Metrics against matrices worked out by hand, accuracy against predictions counted by hand."""

from functools import partial

import numpy as np
import pytest
import torch

from hnetlib.experiment import evaluation
from hnetlib.experiment.data import load_data
from hnetlib.experiment.learner import train_or_load
from hnetlib.experiment.loop import DivergedError, fit
from hnetlib.experiment.streams import SplitTasks
from hnetlib.experiment.tasks import PermutedTasks
from hnetlib.hypernet import Hypernetwork
from hnetlib.targets import MLP, ConvLeNet

nan = float("nan")
R = np.array([[0.9, nan, nan], [0.8, 0.7, nan], [0.6, 0.75, 0.5]])


def test_metrics_by_hand():
    assert evaluation.average_accuracy(R) == pytest.approx((0.6 + 0.75 + 0.5) / 3)
    assert evaluation.learning_accuracy(R) == pytest.approx((0.9 + 0.7 + 0.5) / 3)
    assert evaluation.backward_transfer(R) == pytest.approx((0.6 - 0.9 + 0.75 - 0.7) / 2)
    # task 2 gained after it was learned: its best before the end was 0.7
    assert evaluation.forgetting(R) == pytest.approx((0.9 - 0.6 + 0.7 - 0.75) / 2)


def test_a_single_task_cannot_be_forgotten():
    assert evaluation.metrics(np.array([[0.9]])) == {
        "acc": 0.9,
        "learning_acc": 0.9,
        "bwt": 0.0,
        "forgetting": 0.0,
    }


def test_a_matrix_that_is_not_square_is_refused():
    with pytest.raises(ValueError, match=r"square matrix, tasks by tasks, got shape \(2, 3\)"):
        evaluation.metrics(np.zeros((2, 3)))


def test_accuracy_counts_right_answers_over_all_batches(monkeypatch):
    monkeypatch.setattr(evaluation, "EVAL_BATCH", 7)
    hnet = Hypernetwork(MLP((6, 5, 3)), 1, hnet_hidden=(9,))
    images = torch.rand(50, 6)
    weights = {name: weight.detach() for name, weight in hnet(0).items()}
    labels = hnet.run_target(weights, images).argmax(1)
    labels[:20] = (labels[:20] + 1) % 3
    assert evaluation.accuracy(partial(hnet.run_target, weights), images, labels) == pytest.approx(
        30 / 50
    )


@pytest.mark.parametrize("target", [MLP((784, 12, 10)), ConvLeNet(28)])
def test_all_tasks_at_once_score_as_one_by_one(monkeypatch, target):
    """Permuted columns and dark pixels left out, against permuted images."""
    monkeypatch.setattr(evaluation, "TASKS_AT_ONCE", 3)
    data = load_data("mnist5k")
    assert (data.eval_images == 0).all(0).any(), "no dark pixel: the test would not see them"
    tasks = PermutedTasks(data, num_tasks=5)
    hnet = Hypernetwork(target, num_tasks=5, num_chunks=3, hnet_hidden=(9,))
    one_by_one = [
        evaluation.accuracy(partial(hnet.run_target, hnet(task)), *tasks.eval_set(task))
        for task in range(4)
    ]
    assert len(set(one_by_one)) > 1
    assert evaluation.evaluate_task_aware(hnet, tasks, 4).tolist() == one_by_one


@pytest.mark.parametrize("method", ["hnet", "fine-tuning"])
def test_fewer_evaluations_are_the_same_numbers_where_there_are_some(tiny, method):
    every, some = (
        train_or_load(tiny(num_tasks=5, method=method, eval_every=n), progress=False)
        for n in (1, 2)
    )
    known = ~np.isnan(some.matrix)
    whole_rows = np.isin(np.arange(5), [1, 3, 4])[:, None]  # 2 and 4 learned, and the end
    expected = np.eye(5, dtype=bool) | whole_rows & np.tri(5, dtype=bool)
    assert (known == expected).all()
    assert (some.matrix[known] == every.matrix[known]).all()
    for metric in ("acc", "learning_acc", "bwt"):
        assert some.results[metric] == every.results[metric]
    history = {(tag, step) for tag, _, step in some.load_checkpoint()["history"]}
    assert {step for tag, step in history if tag == "tasks/accuracy"} == {1, 2, 4, 5}
    assert {step for tag, step in history if tag == "tasks/learning_accuracy"} == {1, 2, 3, 4, 5}


def test_a_network_without_numbers_is_right_nowhere():
    labels = torch.tensor([0, 0, 1])
    logits = torch.tensor([[torch.nan, 0.0], [1.0, 0.0], [torch.nan, torch.nan]])
    assert evaluation.accuracy(lambda some: logits, torch.zeros(3, 2), labels) == 1 / 3
    assert evaluation.are_right(logits, labels).tolist() == [False, True, False]


def test_of_other_streams_it_says_so():
    split = SplitTasks(load_data("mnist5k"), ((3, 1), (0, 5, 9)))
    hnet = Hypernetwork(torch.nn.Linear(784, 3), 2, hnet_hidden=(4,))
    with pytest.raises(TypeError, match="tasks: expected PermutedTasks, got SplitTasks"):
        evaluation.evaluate_task_aware(hnet, split, 2)


def test_a_fit_that_diverges_is_no_result():
    network = MLP((784, 10, 10))
    data = load_data("mnist5k")
    with pytest.raises(DivergedError, match="training diverged: not finite after step"):
        fit(network, network.parameters(), data, steps=20, batch_size=10, lr=1e30, points=1)
