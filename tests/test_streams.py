"""Streams: what each task shows, for every kind of stream, and what is refused."""

import itertools
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from hnetlib.experiment.data import load_data
from hnetlib.experiment.evaluation import accuracy
from hnetlib.experiment.stream_learner import accuracy_on
from hnetlib.experiment.streams import (
    ImageTasks,
    LoaderTasks,
    RelabelledTasks,
    RotatedTasks,
    ShiftedTask,
    SplitTasks,
    Stream,
    drawn_classes,
)
from hnetlib.experiment.tasks import PermutedTasks, seeded_generator
from hnetlib.hypernet import Hypernetwork


@pytest.fixture(scope="module")
def data():
    return load_data("mnist5k")


def two_loaders(sizes=(6, 9), **settings):
    """A training and an evaluation loader for each size; inputs tell which task they are of."""
    loaders = []
    for task, size in enumerate(sizes):
        inputs = torch.arange(size)[:, None] + 100.0 * task
        whole = TensorDataset(inputs, torch.arange(size) % (2 + task))
        loaders.append((DataLoader(whole, 4, **settings), DataLoader(whole, 5)))
    return loaders


STREAMS = {
    "permuted": lambda data: PermutedTasks(data, 3),
    "rotated": lambda data: RotatedTasks(data, (0.0, 30.0, 90.0)),
    "relabelled": lambda data: RelabelledTasks(data, 3),
    "shifted": lambda data: ShiftedTask(data),
    "split": lambda data: SplitTasks(data, ((3, 1), (0, 5, 9), (1, 7))),
    "own": lambda data: LoaderTasks(two_loaders(shuffle=True), [2, 3]),
}


@pytest.fixture(params=STREAMS)
def stream(request, data):
    return STREAMS[request.param](data)


def batches(stream, task, seed=0, steps=3):
    return list(stream.train_batches(task, 4, steps, seeded_generator(seed)))


def test_all_keep_to_the_interface(stream):
    assert isinstance(stream, Stream)
    for task in range(stream.num_tasks):
        inputs, labels = stream.eval_set(task)
        assert len(inputs) == len(labels) > 0
        for x, y in [*batches(stream, task), (inputs, labels)]:
            assert x.shape[1:] == inputs.shape[1:]
            assert x.is_floating_point()
            assert y.dtype == torch.int64
            assert 0 <= y.min() <= y.max() < stream.num_classes(task)
        assert labels.max() == stream.num_classes(task) - 1
        assert len(batches(stream, task, steps=5)) == 5


def test_batches_follow_the_generator(stream):
    last = stream.num_tasks - 1
    for (x, y), (same_x, same_y) in zip(batches(stream, last), batches(stream, last), strict=True):
        assert torch.equal(x, same_x)
        assert torch.equal(y, same_y)
    pairs = zip(batches(stream, last), batches(stream, last, seed=1), strict=True)
    assert not all(torch.equal(x, other) for (x, _), (other, _) in pairs)


def test_drawing_leaves_the_global_generator_alone(stream):
    before = torch.get_rng_state()
    batches(stream, 0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("task", [-1, 3])
def test_a_task_out_of_range_is_named(stream, task):
    if isinstance(stream, LoaderTasks) and task > 0:
        task = 2
    for ask in (stream.eval_set, partial(batches, stream)):
        with pytest.raises(IndexError, match=rf"expected 0 to {stream.num_tasks - 1}, got {task}"):
            ask(task)


def test_an_epoch_sees_every_image_of_its_classes_once(data):
    stream = SplitTasks(data, ((3, 1),))
    (x, y), *_ = stream.train_batches(0, 800, 1, seeded_generator(0))
    mine = (data.train_labels == 3) | (data.train_labels == 1)
    assert mine.sum() == 800
    assert sorted(x.sum(1).tolist()) == sorted(data.train_images[mine].sum(1).tolist())
    assert y.bincount().tolist() == [400, 400]


def test_without_a_change_the_data_set_is_as_it_is(data):
    class Plain(ImageTasks):
        num_tasks = 1

    images, labels = Plain(data).eval_set(0)
    assert torch.equal(images, data.eval_images)
    assert torch.equal(labels, data.eval_labels)


def test_rotation_is_against_the_clock_and_exact_for_right_angles(data):
    stream = RotatedTasks(data, (0.0, 90.0, 180.0, 360.0, 45.0))
    square = data.eval_images.view(-1, 28, 28)
    for task, turns in enumerate((0, 1, 2, 4)):
        turned = stream.eval_set(task)[0].view(-1, 28, 28)
        torch.testing.assert_close(turned, square.rot90(turns, (1, 2)), rtol=0, atol=1e-4)
    for x, _ in [stream.eval_set(4), *batches(stream, 4)]:
        assert 0 <= x.min() <= x.max() <= 1 + 1e-6
    mass = stream.eval_set(4)[0].sum() / data.eval_images.sum()
    assert 0.99 < mass < 1.01, "hardly anything of a digit leaves the image"


def test_twice_45_degrees_are_nearly_90(data):
    half = RotatedTasks(data, (45.0,))
    twice = half.show(0, *half.eval_set(0))[0]
    quarter = RotatedTasks(data, (90.0,)).eval_set(0)[0]
    near, far = ((twice - other).square().mean() for other in (quarter, data.eval_images))
    assert near < 0.1 * far


def test_relabelled_classes_keep_their_images_and_differ_between_tasks_and_seeds(data):
    stream = RelabelledTasks(data, 3)
    for task in range(3):
        images, labels = stream.eval_set(task)
        assert torch.equal(images, data.eval_images)
        for old in range(10):
            assert labels[data.eval_labels == old].unique().tolist() == [stream.order(task)[old]]
    others = [RelabelledTasks(data, 3, permutation_seed=1), RelabelledTasks(data, 9)]
    orders = {tuple(s.order(i).tolist()) for s in (stream, *others) for i in range(3)}
    assert len(orders) == 6


def test_split_tasks_have_their_classes_alone_by_place(data):
    stream = SplitTasks(data, ((3, 1), (0, 5, 9)))
    images, labels = stream.eval_set(1)
    for place, old in enumerate((0, 5, 9)):
        assert torch.equal(images[labels == place], data.eval_images[data.eval_labels == old])
    assert len(images) == 300
    assert [stream.num_classes(task) for task in range(2)] == [2, 3]


def test_drawn_groups_use_up_the_classes_first():
    groups = drawn_classes((2, 3, 2, 3, 2), 10, seed=4)
    assert [len(group) for group in groups] == [2, 3, 2, 3, 2]
    assert sorted(c for group in groups[:4] for c in group) == list(range(10))
    assert groups == drawn_classes((2, 3, 2, 3, 2), 10, seed=4)
    assert groups != drawn_classes((2, 3, 2, 3, 2), 10, seed=5)


def test_left_over_classes_are_in_the_next_group_which_has_none_twice():
    first, second, third = drawn_classes((4, 4, 4), 10, seed=1)
    assert {*first, *second}.isdisjoint(third[:2])
    assert len({*third}) == 4
    with pytest.raises(ValueError, match="sizes: expected at most 10 classes, got 12"):
        drawn_classes((12,), 10)


@pytest.mark.parametrize("classes", [((0, 1), (2,)), ((3, 3),), ((9, 10),), ((-1, 2),)])
def test_classes_that_can_not_be_told_apart_are_refused(data, classes):
    with pytest.raises(ValueError, match="two or more different ones of 0 to 9 per task, got"):
        SplitTasks(data, classes)


def test_own_loaders_are_gone_through_as_often_as_it_takes():
    stream = LoaderTasks(two_loaders(), num_classes=[2, 3])
    found = [x[:, 0].tolist() for x, _ in stream.train_batches(1, 4, 4, seeded_generator(0))]
    epoch = [[100, 101, 102, 103], [104, 105, 106, 107], [108]]
    assert found == [*epoch, epoch[0]]
    assert stream.eval_set(0)[0][:, 0].tolist() == list(range(6))


def test_a_generator_of_the_loaders_own_decides():
    own = torch.Generator().manual_seed(3)
    stream = LoaderTasks(two_loaders(shuffle=True, generator=own), 3)
    one = [x.tolist() for x, _ in batches(stream, 0)]
    own.manual_seed(3)
    assert [x.tolist() for x, _ in batches(stream, 0, seed=1)] == one


@pytest.mark.parametrize(
    ("pairs", "num_classes", "error", "message"),
    [
        ([torch.zeros(2, 1)], 2, TypeError, "two tensors, got Tensor"),
        ([(torch.zeros(2, 1), [0, 1])], 2, TypeError, "two tensors, got Tensor, list"),
        ([(torch.zeros(2, 1), torch.tensor([0, 2]))], 2, ValueError, "labels from 0 to 1, got 2"),
        ([(torch.zeros(2, 1), torch.tensor([-1, 0]))], 2, ValueError, "from 0 to 1, got -1"),
        ([(torch.zeros(2, 1), torch.eye(2))], 2, ValueError, r"for each input, got \[2, 2\] of"),
        ([(torch.zeros(2, 1), torch.zeros(2))], 2, ValueError, r"got \[2\] of torch.float32"),
        ([], 2, ValueError, "task 0: expected batches .*, got none"),
    ],
)
def test_batches_of_another_kind_are_refused_in_one_line(pairs, num_classes, error, message):
    stream = LoaderTasks([(pairs, pairs)], num_classes)
    for ask in (stream.eval_set, partial(batches, stream)):
        with pytest.raises(error, match=message) as caught:
            ask(0)
        assert "\n" not in str(caught.value)


def test_sizes_that_contradict_the_loaders_are_refused():
    with pytest.raises(ValueError, match="a number for each of the 2 tasks, got 3"):
        LoaderTasks(two_loaders(), [2, 3, 4])
    stream = LoaderTasks(two_loaders(), 3)
    with pytest.raises(ValueError, match="batch_size: expected 4, as the loader of task 1 has it"):
        next(stream.train_batches(1, 8, 1, seeded_generator(0)))


class Always(nn.Module):
    """Logits that are the module's only parameter, whatever it reads."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, x):
        assert not self.training
        return self.logits.expand(len(x), -1)


def test_accuracy_is_among_the_classes_of_the_task_and_leaves_the_mode():
    """The last logit is the largest, but no class of either task; the middle one of one."""
    stream = LoaderTasks(two_loaders(), [2, 3])
    hnet = Hypernetwork(Always([1.0, 0.0, 3.0, 9.0]), 2, hnet_hidden=(4,)).train()
    hnet.scale.zero_()
    hnet.shift.copy_(torch.tensor([1.0, 0.0, 3.0, 9.0]))
    assert [accuracy_on(hnet, stream, task) for task in (0, 1)] == [0.5, pytest.approx(1 / 3)]
    assert accuracy_on(hnet, stream, 1, most=2) == 0
    assert hnet.training
    accuracy_on(hnet.eval(), stream, 1)
    assert not hnet.training


def test_accuracy_equals_that_of_the_same_network_by_itself(data):
    stream = RotatedTasks(data, (0.0, 50.0))
    hnet = Hypernetwork(nn.Linear(784, 10), 2, hnet_hidden=(8,))
    for task in (0, 1):
        alone = accuracy(hnet.materialize(task), *stream.eval_set(task))
        assert accuracy_on(hnet, stream, task) == alone
    assert np.isfinite(alone)


def test_a_shifted_task_moves_training_images_alone(data):
    stream = ShiftedTask(data, most=2)
    assert torch.equal(stream.eval_set(0)[0], data.eval_images)
    moves = []
    for x, _ in stream.train_batches(0, 16, 6, seeded_generator(0)):
        square = x[0].view(28, 28)
        moves += [
            by
            for by in itertools.product(range(-2, 3), repeat=2)
            if (data.train_images == square.roll(by, (0, 1)).flatten()).all(1).any()
        ]
    assert len(moves) == 6, "each is moved by one of 25 ways"
    assert len(set(moves)) > 2


class Augmented(torch.utils.data.Dataset):
    """Draws from PyTorch's generator for each input."""

    def __len__(self):
        return 9

    def __getitem__(self, index):
        return torch.rand(2) + index, index % 2


def test_what_loaders_draw_between_batches_follows_the_generator_too():
    stream, found = LoaderTasks([[DataLoader(Augmented(), 3, shuffle=True)] * 2], 2), []
    for seed in (0, 1):
        torch.manual_seed(seed)
        batches = [x for x, _ in stream.train_batches(0, 3, 7, seeded_generator(0))]
        found.append(torch.cat([*batches, stream.eval_set(0)[0]]))
    assert torch.equal(*found)


def test_evaluation_batches_that_can_be_read_once_are_refused():
    batches = [(torch.randn(2, 3), torch.tensor([0, 1]))]
    with pytest.raises(ValueError, match="task 0: expected evaluation batches that can be read ag"):
        LoaderTasks([(batches, iter(batches))], num_classes=torch.tensor(2))
    once = LoaderTasks([(iter(batches), batches)], num_classes=2)
    with pytest.raises(ValueError, match="expected batches to train from, got none"):
        list(once.train_batches(0, 2, 2, seeded_generator(0)))
