"""PermutedTasks: fixed permutations that differ, move pixels and keep labels."""

import pytest
import torch

from hnetlib.experiment.data import load_data
from hnetlib.experiment.tasks import PermutedTasks, seeded_generator, shuffled_batches


@pytest.fixture
def tasks():
    return PermutedTasks(load_data("mnist5k"), num_tasks=5)


def test_each_permutation_moves_every_pixel_somewhere_once(tasks):
    for task in range(5):
        assert torch.equal(tasks.permutation(task).sort().values, torch.arange(784))


def test_permutations_differ_between_tasks_and_seeds(tasks):
    other_seed = PermutedTasks(tasks.data, num_tasks=5, permutation_seed=1)
    orders = {tuple(t.permutation(i).tolist()) for t in (tasks, other_seed) for i in range(5)}
    assert len(orders) == 10


def test_a_task_is_the_same_whatever_the_number_of_tasks(tasks):
    more = PermutedTasks(tasks.data, num_tasks=50)
    assert torch.equal(more.permutation(4), tasks.permutation(4))


def test_images_are_permuted_and_labels_kept(tasks):
    images, labels = tasks.eval_set(3)
    assert torch.equal(labels, tasks.data.eval_labels)
    undone = torch.empty_like(images)
    undone[:, tasks.permutation(3)] = images
    assert torch.equal(undone, tasks.data.eval_images)


def test_training_and_evaluation_images_share_the_permutation(tasks):
    """Each training batch, put back in order, is made of training images with their labels."""
    order = tasks.permutation(2)
    known = {
        (tuple(image), label)
        for image, label in zip(
            tasks.data.train_images.tolist(), tasks.data.train_labels.tolist(), strict=True
        )
    }
    (batch,) = tasks.train_batches(2, 16, 1, seeded_generator(0))
    images, labels = batch
    undone = torch.empty_like(images)
    undone[:, order] = images
    for image, label in zip(undone.tolist(), labels.tolist(), strict=True):
        assert (tuple(image), label) in known


def test_an_epoch_sees_every_image_once():
    batches = list(shuffled_batches(10, 4, 5, seeded_generator(1, 2)))
    assert [len(batch) for batch in batches] == [4] * 5
    seen = torch.cat(batches)
    assert sorted(seen[:10].tolist()) == list(range(10))
    assert sorted(seen[10:].tolist()) == list(range(10))


def test_generators_depend_on_every_seed():
    draws = [
        torch.randint(1 << 30, (1,), generator=seeded_generator(*seeds)).item()
        for seeds in ((0, 0), (0, 1), (1, 0), (0, 0))
    ]
    assert draws[0] == draws[3]
    assert len(set(draws)) == 3


def test_a_task_out_of_range_is_named(tasks):
    with pytest.raises(IndexError, match="expected 0 to 4, got 5"):
        tasks.permutation(5)
