"""SimilarTasks: exactly the share asked for moves, of lit pixels and of dark ones."""

import pytest
import torch

from hnetlib.experiment.data import load_data
from hnetlib.experiment.evaluation import accuracy, evaluate_task_aware
from hnetlib.experiment.similarity import SimilarTasks, rank_correlation
from hnetlib.experiment.tasks import PermutedTasks
from hnetlib.hypernet import Hypernetwork
from hnetlib.targets import MLP

MOVED = (0, 0, 0.1, 0.1, 0.5, 1)


@pytest.fixture(scope="module")
def tasks():
    return SimilarTasks(load_data("mnist5k"), moved=MOVED)


def places(tasks, task):
    """Where each pixel [D] is shown."""
    return tasks.permutation(task).argsort()


def test_each_order_shows_every_pixel_once(tasks):
    for task in range(len(MOVED)):
        assert torch.equal(tasks.permutation(task).sort().values, torch.arange(784))


def test_exactly_the_share_asked_for_moves(tasks):
    assert 0 < tasks.lit_pixels.sum() < 784, "MNIST has pixels that are always dark"
    for task, share in enumerate(MOVED):
        elsewhere = places(tasks, task) != places(tasks, 0)
        for group in (tasks.lit_pixels, ~tasks.lit_pixels):
            assert elsewhere[group].sum() == round(share * int(group.sum()))


def test_nothing_moved_is_the_first_task_of_permuted_tasks(tasks):
    base = PermutedTasks(tasks.data, num_tasks=1).permutation(0)
    assert torch.equal(tasks.permutation(0), base)
    assert torch.equal(tasks.permutation(1), base)


def test_equal_shares_move_other_pixels(tasks):
    assert not torch.equal(tasks.permutation(2), tasks.permutation(3))
    assert tasks.differences()[2, 3] > tasks.differences()[0, 2]


def test_orders_depend_on_the_seed_alone(tasks):
    again = SimilarTasks(tasks.data, moved=(*MOVED, 0.5))
    other = SimilarTasks(tasks.data, permutation_seed=1, moved=MOVED)
    assert torch.equal(again.permutation(4), tasks.permutation(4))
    assert not torch.equal(other.permutation(4), tasks.permutation(4))


def test_differences_are_shares_of_lit_pixels(tasks):
    differences, lit = tasks.differences(), int(tasks.lit_pixels.sum())
    assert torch.equal(differences, differences.T)
    for task, share in enumerate(MOVED):
        assert differences[0, task].item() == pytest.approx(round(share * lit) / lit)


def test_the_same_task_twice_is_solved_alike_by_one_network(tasks):
    torch.manual_seed(0)
    hnet = Hypernetwork(MLP((784, 5, 10)), num_tasks=len(MOVED))
    with torch.no_grad():
        hnet.task_tokens[1].copy_(hnet.task_tokens[0])
        weights = hnet(1)
    first, second = evaluate_task_aware(hnet, tasks, 2)
    assert first == second == accuracy(lambda x: hnet.run_target(weights, x), *tasks.eval_set(0))


def test_wrong_shares_are_named(tasks):
    for moved in ((), (0, 1.5), (-0.1,)):
        with pytest.raises(ValueError, match="moved: expected a share from 0 to 1"):
            SimilarTasks(tasks.data, moved=moved)
    with pytest.raises(IndexError, match="expected 0 to 5, got 6"):
        tasks.permutation(6)


def test_rank_correlation_of_a_distance_that_follows_and_of_one_that_does_not():
    torch.manual_seed(0)
    points = torch.randn(12, 3, dtype=torch.float64)
    distances = torch.cdist(points, points)
    follows, chance = rank_correlation(distances, distances.square())  # any rising function
    assert follows == pytest.approx(1)
    assert 0 < chance < 0.6
    other = torch.randn(12, 3, dtype=torch.float64)
    assert abs(rank_correlation(distances, torch.cdist(other, other))[0]) < 0.6
    assert rank_correlation(distances, torch.zeros(12, 12))[0] == 0


def test_equal_values_share_a_rank():
    """Against scipy's Spearman, with ties."""
    stats = pytest.importorskip("scipy.stats")
    first = torch.tensor([[0, 1, 1, 2], [1, 0, 3, 3], [1, 3, 0, 3], [2, 3, 3, 0]])
    second = torch.tensor([[0, 5, 4, 4], [5, 0, 1, 1], [4, 1, 0, 2], [4, 1, 2, 0]])
    rows, columns = torch.triu_indices(4, 4, 1)
    expected = stats.spearmanr(first[rows, columns], second[rows, columns]).statistic
    assert rank_correlation(first, second)[0] == pytest.approx(expected)
