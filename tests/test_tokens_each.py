"""Tokens for each chunk of each task: cuts by dimension, selections, a frozen generator."""

import copy

import pytest
import torch
from kinds import KINDS
from torch.func import vmap
from torch.nn.functional import cross_entropy

from hnetlib import Hypernetwork, LeastChange, TaskRegularizer
from hnetlib.chunks import Along, FlatChunks, Piece
from hnetlib.layers import sine_layers
from hnetlib.targets import MLP

SINES = {"hnet_activation": "sine", "frequency": 2.0, "hnet_hidden": (16,), "task_token_dim": 4}
BY_INPUT = {"generate": "layers.0.weight", "cut": Along({"layers.0.weight": 1}), "tokens": "chunk"}


def by_input(num_tasks=2, **settings):
    return Hypernetwork(MLP((12, 8, 3)), num_tasks, **SINES | BY_INPUT | settings)


def layout_of(**shapes):
    return [Piece((n.replace("_", "."),), torch.Size(s), torch.float32) for n, s in shapes.items()]


def learn(hnet, keep, task, steps=3, lr=0.1):
    optimizer = torch.optim.Adam(hnet.parameters_of(task), lr=lr)
    x, y = torch.randn(32, 12), torch.randint(3, (32,))
    with keep.learning(task):
        for _ in range(steps):
            loss = cross_entropy(hnet.run(x, task=task), y) + keep.penalty()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


# how it is cut


def test_a_chunk_is_what_parameters_hold_at_one_index():
    layout = layout_of(a=(4, 3), b=(5, 4, 2), c=(6,))
    chunks = Along({"b": 1, "a": 0}, {"c": -1})(layout, 1)
    a, b, c = torch.randn(4, 3), torch.randn(5, 4, 2), torch.randn(6)
    rows = chunks.cut(torch.cat([a.flatten(), b.flatten(), c]))
    assert rows.shape == (4 + 6, 10 + 3)
    for index in range(4):
        assert torch.equal(rows[index], torch.cat([b[:, index].flatten(), a[index]]))
    assert torch.equal(rows[4:, 0], c)
    assert not rows[4:, 1:].any()


@pytest.mark.parametrize("lead", [(), (2,), (2, 3)])
def test_flatten_undoes_cut(lead):
    layout = layout_of(a=(4, 3), b=(5, 4, 2), c=(6,))
    chunks = Along({"c": 0}, {"a": 1}, {"b": 2})(layout, 1)
    flat = torch.randn(*lead, 12 + 40 + 6)
    assert chunks.cut(flat).shape == (*lead, 6 + 3 + 2, 20)
    assert torch.equal(chunks.flatten(chunks.cut(flat)), flat)


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        (lambda: Along(), "expected {name of a parameter: dimension}, got nothing"),
        (lambda: Along({"a": 0}, {}), "expected {name of a parameter: dimension}, got nothing"),
        (lambda: Along({"z": 0}), r"names of generated parameters \(a, b\), got 'z'"),
        (lambda: Along({"a": 2}, {"b": 0}), "a has 2 dimensions, so none that is 2"),
        (lambda: Along({"a": 0}), "each generated parameter once, got b 0 times"),
        (lambda: Along({"a": 0}, {"b": 0, "a": 1}), "as many indices along each of a group"),
        (lambda: Along({"a": 0}, {"b": 0}, {"a": 1}), "once, got a 2 times"),
    ],
)
def test_what_cannot_be_cut_is_refused_by_name(cut, message):
    with pytest.raises(ValueError, match=message) as caught:
        cut()(layout_of(a=(4, 3), b=(5,)), 1)
    assert "\n" not in str(caught.value)


def test_a_number_of_chunks_that_the_cut_does_not_make_is_refused():
    assert by_input(num_chunks=12).num_chunks == 12
    with pytest.raises(ValueError, match="expected the 12 that `cut` makes, got 5"):
        by_input(num_chunks=5)


# where the task is told


@pytest.mark.parametrize("kind", ["lstm", "depthwise, group norm", "tied embedding", "batch norm"])
@pytest.mark.parametrize("tokens", ["task", "chunk"])
@pytest.mark.parametrize("along", [False, True])
def test_any_module_in_any_of_these_ways(kind, tokens, along):
    module, args, kwargs = KINDS[kind]()
    generated = [n for n, p in module.named_parameters() if p.requires_grad and p.dim()]
    cut = Along(*({name: -1} for name in generated)) if along else FlatChunks
    settings = SINES | {"cut": cut, "tokens": tokens, "generate": generated}
    hnet = Hypernetwork(module, 2, **settings)
    ours = hnet.run(*args, task=1, **kwargs)
    theirs = hnet.materialize(1)(*args, **kwargs)
    for one, other in zip(flat_tensors(ours), flat_tensors(theirs), strict=True):
        torch.testing.assert_close(one, other)
    for name, value in hnet.weights_of([0, 1]).items():
        torch.testing.assert_close(value[1], hnet(1)[name])


def flat_tensors(outputs):
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    return [tensor for part in outputs for tensor in flat_tensors(part)]


def test_a_token_moves_its_own_chunk_alone():
    hnet = by_input()
    assert hnet.token_shape == (12, 4)
    assert hnet.chunk_tokens.numel() == 0
    before = hnet(0)["layers.0.weight"].detach().clone()
    with torch.no_grad():
        hnet.task_tokens[0][5] += 1
    changed = (hnet(0)["layers.0.weight"] != before).any(0)
    assert changed.nonzero().tolist() == [[5]]


def test_generated_weights_start_with_the_modules_spread():
    module = MLP((784, 100, 10))
    hnet = Hypernetwork(module, 1, **SINES | BY_INPUT)
    ratio = hnet(0)["layers.0.weight"].std() / module.layers[0].weight.std()
    assert 0.7 < ratio < 1.3


def test_frequency_is_the_spread_of_the_first_layer_and_phases_fill_a_period():
    first, _, second, _ = sine_layers((3, 4000, 10), frequency=2.5)
    assert first.weight.std().item() == pytest.approx(2.5, rel=0.05)
    assert first.bias.abs().max() > 3
    assert first.bias.min() < 0
    assert second.weight.std().item() == pytest.approx(4000**-0.5, rel=0.05)
    assert not second.bias.any()
    with pytest.raises(ValueError, match="frequency: expected None with relu"):
        by_input(hnet_activation="relu")
    with pytest.raises(ValueError, match="tokens: expected one of task, chunk, got 'both'"):
        by_input(tokens="both")


def test_a_token_of_the_wrong_shape_is_refused():
    with pytest.raises(ValueError, match=r"expected shape \[..., 12, 4\], got \[4\]"):
        by_input()(torch.zeros(4))


def test_batches_of_tokens_through_vmap():
    hnet, x = by_input(), torch.randn(5, 12)
    together = vmap(hnet.run_target, in_dims=(0, None))(hnet.weights_of([1, 0]), x)
    torch.testing.assert_close(together[0], hnet.run(x, task=1))
    flat = hnet.generate(torch.stack(list(hnet.task_tokens)))
    assert flat.shape == (2, 12 * 8)


@pytest.mark.parametrize("penalty", ["all", "tasks", "rows"])
@pytest.mark.parametrize("snapshot", ["before_task", "at_learning"])
def test_the_penalty_holds_them_while_the_generator_learns(penalty, snapshot):
    hnet = by_input()
    keep = TaskRegularizer(hnet, penalty=penalty, snapshot=snapshot, penalty_size=100)
    learn(hnet, keep, 0)
    before = hnet(0)["layers.0.weight"].detach()
    with keep.learning(1), torch.no_grad():
        assert keep.penalty().item() == pytest.approx(0, abs=1e-9)
        hnet.output_layer.weight.add_(0.1 * torch.randn_like(hnet.output_layer.weight))
        moved = (hnet(0)["layers.0.weight"].detach() - before).square().sum()
        torch.testing.assert_close(keep.penalty(), moved)


# a generator that freezes


def test_nothing_can_be_forgotten_once_the_generator_is_frozen():
    hnet = by_input(3)
    keep = TaskRegularizer(hnet)
    learn(hnet, keep, 0)
    hnet.freeze_generator()
    assert [p is hnet.task_tokens[1] for p in hnet.parameters_of(1)] == [True]
    before = copy.deepcopy(hnet.state_dict())
    x = torch.randn(9, 12)
    outputs = hnet.run(x, task=0)
    for task in (2, 1):
        learn(hnet, keep, task)
    assert torch.equal(hnet.run(x, task=0), outputs)
    moved = {n for n, v in hnet.state_dict().items() if not torch.equal(v, before[n])}
    assert moved == {"task_tokens.1", "task_tokens.2", "_extra_state"}


@pytest.mark.parametrize("penalty", ["all", "rows"])
def test_then_the_penalty_is_nothing_and_stores_nothing(penalty):
    hnet = by_input(3)
    keep = TaskRegularizer(hnet, penalty=penalty)
    learn(hnet, keep, 0)
    learn(hnet, keep, 1)
    hnet.freeze_generator()
    with keep.learning(2), torch.no_grad():
        assert keep.penalty() == 0
        assert not len(keep.draw())
        assert not keep.snapshots.state()["stored"].numel()
        weights, price = keep.weights_and_penalty()
        assert price == 0
        torch.testing.assert_close(weights["layers.0.weight"], hnet(2)["layers.0.weight"])


def test_learning_keeps_guarding():
    hnet = by_input(3)
    keep = TaskRegularizer(hnet)
    learn(hnet, keep, 0)
    hnet.freeze_generator()
    with pytest.raises(RuntimeError, match="its token did not move"), keep.learning(1):
        hnet.run(torch.randn(2, 12), task=1).sum().backward()
    with pytest.raises(ValueError, match="not learned yet"), keep.learning(0):
        pass
    with pytest.raises(RuntimeError, match="expected within"):
        keep.penalty()


def test_tasks_learned_in_any_order_end_with_the_same_bytes():
    start = by_input(4)
    learn(start, TaskRegularizer(start), 0)
    start.freeze_generator()
    ends = []
    for order in ((1, 2, 3), (3, 1, 2), (2,)):
        hnet = copy.deepcopy(start)
        keep = TaskRegularizer(hnet, old_tasks=[0])
        for task in order:
            torch.manual_seed(task)
            learn(hnet, keep, task)
        ends.append(hnet)
    for task in (1, 2, 3):
        assert torch.equal(ends[0].task_tokens[task], ends[1].task_tokens[task])
    assert torch.equal(ends[0].task_tokens[2], ends[2].task_tokens[2])


def test_what_was_frozen_in_the_module_stays_so_when_a_state_thaws():
    module = MLP((12, 8, 3))
    module.layers[2].bias.requires_grad_(False)
    learning, frozen = (Hypernetwork(module, 1, **SINES | BY_INPUT) for _ in range(2))
    frozen.freeze_generator()
    assert {n for n, p in frozen.named_parameters() if p.requires_grad} == {"task_tokens.0"}
    state = frozen.state_dict()
    frozen.load_state_dict(learning.state_dict())
    assert not frozen.generator_frozen
    still = {n for n, p in frozen.named_parameters() if not p.requires_grad}
    assert still == {"kept.shared.layers/2/bias"}
    learning.load_state_dict(state)
    assert learning.generator_frozen


def test_least_change_wants_a_generator_that_learns():
    hnet = by_input(hnet_hidden=(20,))
    keep = TaskRegularizer(hnet, least_change=LeastChange(hnet))
    hnet.freeze_generator()
    with pytest.raises(ValueError, match="least_change: expected a generator that learns"):
        keep.learning(0).__enter__()


# chunks without a token


def chosen(number=5):
    return torch.arange(12) < number


def test_chunks_without_a_token_are_zero_and_cost_no_parameters():
    hnet = by_input()
    hnet.select_chunks(1, chosen())
    assert hnet.task_tokens[1].shape == (5, 4)
    weight = hnet(1)["layers.0.weight"]
    assert weight[:, :5].all()
    assert not weight[:, 5:].any()
    torch.testing.assert_close(hnet.chunks_of(1).T, weight[:, :5])
    assert hnet.chunks_of(0).shape == (12, 8)
    together = hnet.weights_of([0, 1])["layers.0.weight"]
    assert torch.equal(together[1], weight)
    assert torch.equal(together[0], hnet(0)["layers.0.weight"])
    assert torch.equal(hnet.materialize(1).layers[0].weight, weight)


@pytest.mark.parametrize("num_tasks", [0, 1, 3])
def test_a_state_brings_its_selections(num_tasks):
    one, other = by_input(2), by_input(num_tasks)
    one.select_chunks(1, chosen())
    if num_tasks == 3:
        other.select_chunks(0, chosen(3))
        other.select_chunks(2, chosen(2))
    one.freeze_generator()
    other.load_state_dict(one.state_dict())
    for task in (0, 1):
        for name, value in one(task).items():
            assert torch.equal(other(task)[name], value)
    assert other.selections.among(range(other.num_tasks)) == ([1, 2] if num_tasks == 3 else [1])
    halved = {name: value.half() for name, value in one.state_dict().items()}
    other.load_state_dict(halved)
    assert other.selections.of(1).dtype == torch.bool


def test_learns_with_a_selection_and_then_wants_a_frozen_generator():
    hnet = by_input()
    hnet.select_chunks(0, chosen())
    keep = TaskRegularizer(hnet)
    learn(hnet, keep, 0)
    with pytest.raises(ValueError, match="tokens for some chunks alone"):
        learn(hnet, keep, 1)
    hnet.freeze_generator()
    hnet.select_chunks(1, chosen(7))
    learn(hnet, keep, 1)


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        (torch.ones(12), "expected a bool for each of 12 chunks"),
        (torch.ones(11, dtype=torch.bool), r"got torch.bool \[11\]"),
        (torch.zeros(12, dtype=torch.bool), "at least one with a token, got none"),
    ],
)
def test_a_selection_that_is_none_is_refused(chunks, message):
    with pytest.raises(ValueError, match=message):
        by_input().select_chunks(0, chunks)


def test_a_selection_comes_first_and_once():
    hnet = by_input()
    hnet.select_chunks(0, chosen())
    hnet.freeze_token(1)
    for task in (0, 1):
        with pytest.raises(ValueError, match=f"tokens of task {task} are frozen or selected"):
            hnet.select_chunks(task, chosen())
    with pytest.raises(ValueError, match='expected a hypernetwork with tokens="chunk"'):
        by_input(tokens="task").select_chunks(0, chosen())
