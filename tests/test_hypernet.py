"""The hypernetwork: shapes, gradients, tokens, and any module as its target."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from hnetlib.hypernet import hypernetize
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
    hnet = hypernetize(target, 2, num_chunks=num_chunks, hnet_hidden=(5,))
    weights = hnet(1)
    assert {n: w.shape for n, w in weights.items()} == {
        n: p.shape for n, p in target.named_parameters()
    }
    assert hnet.num_weights == 20 * 7 + 7 + 7 * 3 + 3
    assert hnet.generate(torch.zeros(4, 64)).shape == (4, hnet.num_weights)
    assert hnet.generate_chunks(torch.zeros(2, 4, 64)).shape == (2, 4, num_chunks, hnet.chunk_size)


@pytest.mark.parametrize(
    ("target", "inputs"),
    [
        (Recurrent(), torch.randn(8, 5, 4)),
        (ConvLeNet(8), torch.rand(8, 64)),
        (MLP((64, 30, 10)), torch.rand(8, 64)),
    ],
)
def test_computes_what_the_target_computes_with_the_generated_weights(target, inputs):
    hnet = hypernetize(target, num_chunks=3, hnet_hidden=(8,))
    weights = hnet(0)
    outputs = hnet.run_target(weights, inputs)
    target.load_state_dict(target.state_dict() | {n: w.detach() for n, w in weights.items()})
    torch.testing.assert_close(outputs, target(inputs))
    assert "target" not in "".join(name for name, _ in hnet.named_parameters())


def test_tied_weights_are_generated_once_and_stay_tied():
    hnet = hypernetize(Recurrent(), hnet_hidden=(8,))
    weights = hnet(0)
    assert weights["first.weight"] is weights["second.weight"]
    assert hnet.num_weights == sum(p.numel() for p in Recurrent().parameters())


def test_chunks_follow_each_other_in_the_flat_vector():
    hnet = hypernetize(MLP((10, 4, 3)), 2, num_chunks=4, hnet_hidden=(8,))
    token = hnet.task_tokens[1]
    flat = hnet.generate(token)
    for chunk in range(4):
        row = hnet.generate_rows(token[None], torch.tensor([chunk]))[0]
        here = flat[chunk * hnet.chunk_size : (chunk + 1) * hnet.chunk_size]
        torch.testing.assert_close(row[: len(here)], here)
        assert (row[len(here) :] == 0).all()


def test_gradients_reach_the_used_task_token_and_all_chunk_tokens():
    hnet = hypernetize(MLP((10, 8, 3)), 3, num_chunks=4, hnet_hidden=(16,))
    logits = hnet.run_target(hnet(1), torch.rand(32, 10))
    cross_entropy(logits, torch.randint(3, (32,))).backward()
    assert hnet.task_tokens[1].grad.abs().max() > 0
    assert hnet.task_tokens[0].grad is None
    assert (hnet.chunk_tokens.grad.abs().amax(1) > 0).all()


def test_a_frozen_token_does_not_move_while_chunk_tokens_do():
    hnet = hypernetize(MLP((10, 8, 3)), 2, num_chunks=4, hnet_hidden=(16,))
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
    hnet = hypernetize(target, num_chunks=10)
    for name, parameter in target.named_parameters():
        if parameter.dim() == 2:
            assert 0.5 < hnet(0)[name].std() / parameter.std() < 2, name


def test_a_normalisation_layer_starts_near_its_own_values():
    hnet = hypernetize(nn.Sequential(nn.Linear(30, 200), nn.BatchNorm1d(200)), num_chunks=5)
    weights = hnet(0)
    assert abs(weights["1.weight"].mean() - 1) < 0.1
    assert weights["1.weight"].std() > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_chunks": 0}, "num_chunks: expected at least 1, got 0"),
        ({"num_chunks": 36}, "at most one chunk for each of the target's 35 weights, got 36"),
        ({"num_tasks": 0}, "num_tasks: expected at least 1, got 0"),
        ({"hnet_hidden": ()}, "hnet_hidden: expected positive layer sizes"),
    ],
)
def test_wrong_settings_say_what_was_expected(settings, message):
    with pytest.raises(ValueError, match=message):
        hypernetize(nn.Linear(6, 5), **settings)


def test_a_module_without_parameters_is_refused():
    with pytest.raises(ValueError, match="expected a module with parameters"):
        hypernetize(nn.ReLU())


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
        hnet = hypernetize(MLP((10, 8, 3)), num_chunks=10, hnet_activation=activation)
        one, other = torch.randn(2, 10, 64)
        features = hnet.features(one, hnet.chunk_tokens), hnet.features(other, hnet.chunk_tokens)
        cosines[activation] = torch.cosine_similarity(*features).mean().item()
    assert 0.6 < cosines["relu"] < 0.8
    assert 0.1 < cosines["sine"] < 0.3


def test_all_activations_start_generated_weights_at_the_targets_spread():
    for activation in ("relu", "elu", "sine"):
        torch.manual_seed(0)
        hnet = hypernetize(MLP((784, 100, 10)), num_chunks=10, hnet_activation=activation)
        assert 0.7 < hnet(0)["layers.0.weight"].std() / (2 / 784) ** 0.5 < 1.3
    with pytest.raises(ValueError, match="expected one of relu, elu, sine, got 'tanh'"):
        hypernetize(MLP((10, 8, 3)), hnet_activation="tanh")
