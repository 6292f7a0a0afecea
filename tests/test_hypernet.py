"""The hypernetwork: shapes, gradients, tokens, and any module as its target."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from hnetlib.chunks import FlatChunks
from hnetlib.hypernet import Hypernetwork
from hnetlib.targets import MLP, ConvLeNet, make_target


class Recurrent(nn.Module):
    """Cached weights (LSTM), buffers (batch norm) and two tied layers: all a target can have."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(4, 6, batch_first=True)
        self.norm = nn.BatchNorm1d(6)
        self.first = nn.Linear(6, 3)
        self.second = nn.Linear(6, 3)
        self.second.weight = self.first.weight

    def forward(self, x):
        last = self.norm(self.lstm(x)[0][:, -1])
        return self.first(last) + self.second(last)


@pytest.mark.parametrize("num_chunks", [1, 3, 7, 40])
def test_generates_every_weight_in_the_targets_shapes(num_chunks):
    target = MLP((20, 7, 3))
    hnet = Hypernetwork(target, 2, num_chunks=num_chunks, hnet_hidden=(5,))
    weights = hnet(1)
    assert {n: w.shape for n, w in weights.items()} == {
        n: p.shape for n, p in target.named_parameters()
    }
    assert hnet.num_weights == 20 * 7 + 7 + 7 * 3 + 3
    assert hnet.generate(torch.zeros(4, 64)).shape == (4, hnet.num_weights)
    assert hnet.rows_of(torch.zeros(2, 4, 64)).shape == (2, 4, num_chunks, hnet.chunk_size)


@pytest.mark.parametrize(
    ("target", "inputs"),
    [
        (Recurrent(), torch.randn(8, 5, 4)),
        (ConvLeNet(8), torch.rand(8, 64)),
        (MLP((64, 30, 10)), torch.rand(8, 64)),
    ],
)
def test_computes_what_the_target_computes_with_the_generated_weights(target, inputs):
    hnet = Hypernetwork(target, 1, num_chunks=3, hnet_hidden=(8,))
    weights = hnet(0)
    outputs = hnet.eval().run_target(weights, inputs)
    target.load_state_dict(hnet(0))
    torch.testing.assert_close(outputs, target.eval()(inputs))
    parts = {name.split(".")[0] for name, _ in hnet.named_parameters()}
    assert parts == {"body", "output_layer", "chunk_tokens", "task_tokens"}


def test_tied_weights_are_generated_once_and_stay_tied():
    hnet = Hypernetwork(Recurrent(), 1, hnet_hidden=(8,))
    weights = hnet(0)
    assert weights["first.weight"] is weights["second.weight"]
    assert hnet.num_weights == sum(p.numel() for p in Recurrent().parameters())


def test_chunks_follow_each_other_in_the_flat_vector():
    hnet = Hypernetwork(MLP((10, 4, 3)), 2, num_chunks=4, hnet_hidden=(8,))
    token = hnet.task_tokens[1]
    flat = hnet.generate(token)
    for chunk in range(4):
        features = hnet.features(token[None], hnet.chunk_tokens[chunk : chunk + 1])
        row = (hnet.output_layer(features) * hnet.scale[chunk] + hnet.shift[chunk])[0]
        here = flat[chunk * hnet.chunk_size : (chunk + 1) * hnet.chunk_size]
        torch.testing.assert_close(row[: len(here)], here)
        assert (row[len(here) :] == 0).all()


def test_gradients_reach_the_used_task_token_and_all_chunk_tokens():
    hnet = Hypernetwork(MLP((10, 8, 3)), 3, num_chunks=4, hnet_hidden=(16,))
    logits = hnet.run_target(hnet(1), torch.rand(32, 10))
    cross_entropy(logits, torch.randint(3, (32,))).backward()
    assert hnet.task_tokens[1].grad.abs().max() > 0
    assert hnet.task_tokens[0].grad is None
    assert (hnet.chunk_tokens.grad.abs().amax(1) > 0).all()


def test_a_frozen_token_does_not_move_while_chunk_tokens_do():
    hnet = Hypernetwork(MLP((10, 8, 3)), 2, num_chunks=4, hnet_hidden=(16,))
    optimizer = torch.optim.Adam(hnet.parameters(), lr=0.1, weight_decay=0.1)

    def step(task):
        optimizer.zero_grad()
        hnet.run_target(hnet(task), torch.rand(8, 10)).square().sum().backward()
        optimizer.step()

    step(0)
    hnet.freeze_token(0)
    token, chunk_tokens = hnet.task_tokens[0].clone(), hnet.chunk_tokens.clone()
    step(0)
    step(1)
    assert torch.equal(hnet.task_tokens[0], token)
    assert not torch.equal(hnet.chunk_tokens, chunk_tokens)


def test_generated_weights_start_with_the_spread_of_the_targets():
    target = MLP((784, 300, 100, 10))
    hnet = Hypernetwork(target, 1, num_chunks=10)
    for name, parameter in target.named_parameters():
        if parameter.dim() == 2:
            assert 0.5 < hnet(0)[name].std() / parameter.std() < 2, name


def test_a_normalisation_layer_starts_near_its_own_values():
    hnet = Hypernetwork(nn.Sequential(nn.Linear(30, 200), nn.BatchNorm1d(200)), 1, num_chunks=5)
    weights = hnet(0)
    assert abs(weights["1.weight"].mean() - 1) < 0.1
    assert weights["1.weight"].std() > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_chunks": 0}, "num_chunks: expected at least 1, got 0"),
        ({"num_chunks": 36}, "at most one chunk for each of the target's 35 weights, got 36"),
        ({"num_tasks": -1}, "num_tasks: expected at least 0, got -1"),
        ({"hnet_hidden": ()}, "hnet_hidden: expected positive layer sizes"),
    ],
)
def test_wrong_settings_say_what_was_expected(settings, message):
    with pytest.raises(ValueError, match=message):
        Hypernetwork(nn.Linear(6, 5), **settings)


def test_a_module_without_parameters_is_refused():
    with pytest.raises(ValueError, match="expected a module with parameters"):
        Hypernetwork(nn.ReLU())


def test_targets_by_name():
    assert sum(p.numel() for p in make_target("lenet-300-100", 784).parameters()) == 266_610
    assert make_target("conv-lenet", 784)(torch.rand(2, 784)).shape == (2, 10)
    for name in ("mlp", "mlp-0", "resnet"):
        with pytest.raises(ValueError, match="target: expected"):
            make_target(name, 784)


def test_sines_keep_the_features_of_different_tasks_apart():
    """The cosine between what the last layer reads for two tasks, same chunk, before training."""
    cosines = {}
    for activation in ("relu", "sine"):
        torch.manual_seed(0)
        hnet = Hypernetwork(MLP((10, 8, 3)), 1, num_chunks=10, hnet_activation=activation)
        one, other = torch.randn(2, 10, 64)
        features = hnet.features(one, hnet.chunk_tokens), hnet.features(other, hnet.chunk_tokens)
        cosines[activation] = torch.cosine_similarity(*features).mean().item()
    assert 0.6 < cosines["relu"] < 0.8
    assert 0.1 < cosines["sine"] < 0.3


def test_all_activations_start_generated_weights_at_the_targets_spread():
    for activation in ("relu", "elu", "sine"):
        torch.manual_seed(0)
        hnet = Hypernetwork(MLP((784, 100, 10)), 1, num_chunks=10, hnet_activation=activation)
        assert 0.7 < hnet(0)["layers.0.weight"].std() / (2 / 784) ** 0.5 < 1.3
    with pytest.raises(ValueError, match="expected one of relu, elu, sine, got 'tanh'"):
        Hypernetwork(MLP((10, 8, 3)), hnet_activation="tanh")


def small(num_tasks=2, **settings):
    settings = {"num_chunks": 3, "task_token_dim": 6, "hnet_hidden": (9,)} | settings
    return Hypernetwork(MLP((5, 4, 3)), num_tasks, **settings)


@pytest.mark.parametrize("kind", [int, np.int64, np.uint8, torch.tensor])
def test_an_index_of_any_integer_kind(kind):
    hnet = small()
    assert torch.equal(hnet(kind(1))["layers.0.weight"], hnet(1)["layers.0.weight"])
    assert hnet.parameters_of(kind(1))[-1] is hnet.task_tokens[1]


@pytest.mark.parametrize("index", [2, -1, np.int64(7)])
def test_an_index_out_of_range_says_how_many_there_are(index):
    with pytest.raises(IndexError, match=f"one of the 2 there are.* got {index}"):
        small()(index)


@pytest.mark.parametrize("index", [True, 1.0, "1", torch.tensor([1]), torch.tensor(True), None])
def test_what_is_no_index_is_refused(index):
    with pytest.raises(TypeError, match="task: expected an integer or a token"):
        small()(index)


def test_a_token_of_the_wrong_length_is_refused():
    with pytest.raises(ValueError, match=r"expected shape \[..., 6\], got \[5\]"):
        small()(torch.zeros(5))


def test_a_token_or_a_batch_of_tasks_is_as_each_by_itself():
    hnet = small()
    token = hnet.task_tokens[1]
    together = hnet.weights_of(torch.tensor([1, 0]))
    for name, weight in hnet(1).items():
        assert torch.equal(hnet(token)[name], weight)
        torch.testing.assert_close(together[name][0], weight)


def test_tasks_come_one_by_one_as_they_would_at_the_start():
    torch.manual_seed(3)
    at_once = small(3)
    torch.manual_seed(3)
    growing = small(0)
    assert [growing.add_task() for _ in range(3)] == [0, 1, 2]
    assert growing.num_tasks == 3
    for one, other in zip(at_once.parameters(), growing.parameters(), strict=True):
        assert torch.equal(one, other)


def test_an_optimizer_of_a_task_has_all_but_other_tokens():
    hnet = small(3)
    hnet.freeze_token(0)
    ours = {id(p) for p in hnet.parameters_of(1)}
    left_out = [n for n, p in hnet.named_parameters() if id(p) not in ours]
    assert left_out == ["task_tokens.0", "task_tokens.2"]
    hnet.output_layer.requires_grad_(False)
    assert len(hnet.parameters_of(1)) == len(ours) - 2


class Target(nn.Module):
    """Takes arguments by position and by name."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, first, *, second, negate=False):
        total = self.layer(first + second)
        return -total if negate else total


def test_arguments_reach_the_module():
    hnet, x = Hypernetwork(Target(), 1, hnet_hidden=(9,)), torch.randn(2, 4)
    plain = hnet.run(x, task=0, second=x)
    assert torch.equal(hnet.run(x, task=0, second=x, negate=True), -plain)
    assert torch.equal(hnet.run_target(hnet(0), x, second=x, negate=True), -plain)


def test_train_and_eval_reach_the_module():
    module = nn.Sequential(nn.Linear(4, 3), nn.Dropout()).eval()
    hnet = Hypernetwork(module, 1)
    assert not hnet.training
    assert not hnet.target[1].training
    assert hnet.train().target[1].training
    assert not hnet.eval().target[1].training


def test_a_part_in_eval_mode_stays_so_until_train_is_called():
    module = nn.Sequential(nn.Linear(4, 3), nn.Dropout())
    module[1].eval()
    hnet = Hypernetwork(module, 1)
    assert hnet.training
    assert not hnet.target[1].training


@pytest.mark.parametrize(("of_state", "of_ours"), [(2, 3), (3, 2), (2, 0)])
def test_a_state_brings_its_tasks_and_leaves_the_others(of_state, of_ours):
    module = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6))
    one, other = (Hypernetwork(module, n, hnet_hidden=(9,)) for n in (of_state, of_ours))
    one.freeze_token(0)
    one.run(torch.randn(8, 4), task=1)
    before = copy.deepcopy(other)
    other.load_state_dict(one.state_dict())
    assert other.num_tasks == max(of_state, of_ours)
    assert [t.requires_grad for t in other.task_tokens] == [False] + [True] * (other.num_tasks - 1)
    for task in range(of_state):
        for name, value in one(task).items():
            assert torch.equal(other(task)[name], value), name
    for task in range(of_state, of_ours):
        assert torch.equal(other.task_tokens[task], before.task_tokens[task])
    assert not other(other.add_task())["1.num_batches_tracked"]


def test_a_state_of_another_module_is_refused():
    with pytest.raises(RuntimeError, match="size mismatch"):
        small().load_state_dict(Hypernetwork(MLP((5, 6, 3)), 2, hnet_hidden=(9,)).state_dict())


def test_states_load_inside_another_module():
    one, other = (nn.Sequential(nn.Linear(2, 2), small(n)) for n in (3, 1))
    one[1].freeze_token(2)
    other.load_state_dict(one.state_dict())
    assert other[1].num_tasks == 3
    assert torch.equal(other[1].task_tokens[2], one[1].task_tokens[2])
    assert [token.requires_grad for token in other[1].task_tokens] == [True, True, False]


class Backwards(FlatChunks):
    """Another way to cut: the flat vector from its end."""

    def flatten(self, rows):
        return super().flatten(rows).flip(-1)

    def cut(self, flat):
        return super().cut(flat.flip(-1))


def test_another_way_to_cut_needs_nothing_of_the_hypernetwork():
    hnet = small(cut=Backwards)
    scale = hnet.unflatten(hnet.chunks.flatten(hnet.scale))
    for name, parameter in MLP((5, 4, 3)).named_parameters():
        assert len(scale[name].unique()) == 1
        assert hnet(0)[name].shape == parameter.shape
    assert (hnet.scale[-1] == scale["layers.0.weight"][0, 0]).sum() > 5


def test_relative_size_counts_all_parameters_over_the_modules():
    hnet = small()
    assert hnet.relative_size == sum(p.numel() for p in hnet.parameters()) / hnet.num_weights
    assert hnet.num_weights == 5 * 4 + 4 + 4 * 3 + 3
