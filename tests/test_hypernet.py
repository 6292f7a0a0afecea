"""The hypernetwork: shapes, starts, settings, cuts, and the module it runs."""

import pytest
import torch
from nets import small
from torch import nn

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
        ({"num_chunks": 0}, "num_chunks: expected a whole number of at least 1, got 0"),
        ({"num_chunks": 36}, "at most one chunk for each of the target's 35 weights, got 36"),
        ({"num_tasks": -1}, "num_tasks: expected a whole number of at least 0, got -1"),
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
