"""Tokens for each chunk of each task: cuts by dimension, and where the task is told."""

import pytest
import torch
from kinds import KINDS
from nets import BY_INPUT, SINES, by_input, learn
from torch.func import vmap

from hnetlib import Hypernetwork, TaskRegularizer
from hnetlib.chunks import Along, FlatChunks, Piece
from hnetlib.layers import sine_layers
from hnetlib.targets import MLP


def layout_of(**shapes):
    return [Piece((n.replace("_", "."),), torch.Size(s), torch.float32) for n, s in shapes.items()]


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
        (lambda: Along({"a": 0}, {}), "{name of a parameter: dimension}, got {'a': 0}, {}"),
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
    with pytest.raises(ValueError, match=r"expected shape \[12, 4\], got \[4\]"):
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
