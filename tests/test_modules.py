"""Any module: each kind runs, starts, learns, is copied and saved as it would by itself."""

import copy
import io
import pickle

import pytest
import torch
from kinds import KINDS
from nets import SETTINGS, moved, state
from torch import nn
from torch.func import functional_call, vmap
from torch.utils.checkpoint import checkpoint

from hnetlib import Hypernetwork

# PyTorch itself refuses to pickle them whole: "only supported through state_dict"
NOT_PICKLED = ("weight norm", "spectral norm", "orthogonal")
CONSTANT_BUFFERS = ("complex buffer", "orthogonal")


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def case(kind):
    """A module, its hypernetwork of two tasks, and inputs."""
    module, args, kwargs = KINDS[kind]()
    return module, Hypernetwork(module, 2, **SETTINGS), args, kwargs


def tensors(outputs):
    """The tensors of any output, in order."""
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    parts = outputs.values() if isinstance(outputs, dict) else outputs
    return [tensor for part in parts for tensor in tensors(part)]


def assert_same(ours, theirs):
    for one, other in zip(tensors(ours), tensors(theirs), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("training", [True, False])
def test_computes_what_the_module_computes_with_these_weights(case, training):
    module, hnet, args, kwargs = case
    hnet.train(training), module.train(training)
    own = hnet.materialize(1)
    values = {name: value.detach().clone() for name, value in hnet(1).items()}
    outputs = []
    for compute in (
        lambda: hnet.run(*args, task=1, **kwargs),
        lambda: own(*args, **kwargs),
        lambda: functional_call(module, values, args, kwargs, tie_weights=False),
    ):
        torch.manual_seed(1)  # dropout
        outputs.append(compute())
    assert_same(outputs[0], outputs[1])
    assert_same(outputs[0], outputs[2])


def test_evaluates_the_same_without_gradients(case):
    """Transformers take another way then: one kernel for a layer."""
    _, hnet, args, kwargs = case
    hnet.eval()
    expected = hnet.run(*args, task=1, **kwargs)
    with torch.no_grad():
        ours = tensors(hnet.run(*args, task=1, **kwargs))
    for one, other in zip(ours, tensors(expected), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_step_moves_what_it_should_and_nothing_else(case, kind):
    module, hnet, args, kwargs = case
    hnet.train()
    optimizer = torch.optim.Adam(hnet.parameters_of(1), lr=1e-2)
    before = state(hnet)
    outputs = hnet.run(*args, task=1, **kwargs)
    sum(output.float().square().sum() for output in tensors(outputs)).backward()
    optimizer.step()
    found = moved(before, hnet)
    assert {"task_tokens.1", "chunk_tokens", "output_layer.weight", "body.0.weight"} <= found
    still = {"task_tokens.0", "shift", "scale"}
    still |= {name for name in before if name.startswith(("kept.tasks.0.", "kept.start."))}
    still |= {f"kept.shared.{name.replace('.', '/')}" for name, _ in module.named_parameters()}
    assert not still & found
    statistics = {name for name in before if name.startswith("kept.tasks.1.")}
    assert bool(statistics & found) == (bool(statistics) and kind not in CONSTANT_BUFFERS)


def test_starts_at_the_scale_of_the_modules_own_start(case):
    module, _, _, _ = case
    weights = Hypernetwork(module, 20, **SETTINGS).weights_of(range(20))
    for name, parameter in module.named_parameters(remove_duplicate=False):
        if not parameter.requires_grad or not parameter.numel():
            continue
        start = parameter.detach().double()
        spread = start.std(correction=0)
        if spread < 1e-6 * start.abs().max() or not start.any():
            spread = 0.05 * (start.abs().max() or 1.0)
        away = weights[name].double() - start.mean()
        assert 0.5 < away.square().mean().sqrt() / spread < 2, name


def test_prints_and_is_copied_after_use(case, kind):
    _, hnet, args, kwargs = case
    hnet.train()
    sum(o.float().sum() for o in tensors(hnet.run(*args, task=0, **kwargs))).backward()
    hnet.eval()
    assert str(hnet.target).replace("meta.", "") == str(hnet.materialize(0))
    assert type(hnet.target).__name__ in str(hnet)
    copies = [copy.deepcopy(hnet)]
    if kind not in NOT_PICKLED:
        whole = io.BytesIO()
        torch.save(hnet, whole)
        whole.seek(0)
        copies += [pickle.loads(pickle.dumps(hnet)), torch.load(whole, weights_only=False)]
    before = hnet.run(*args, task=0, **kwargs)
    with torch.no_grad():
        for copied in copies:
            assert_same(copied.run(*args, task=0, **kwargs), before)
            copied.output_layer.bias.add_(1)
    assert_same(hnet.run(*args, task=0, **kwargs), before)


def test_a_state_goes_into_another_one_exactly(case):
    module, hnet, args, kwargs = case
    hnet.train()
    hnet.run(*args, task=1, **kwargs)
    hnet.freeze_token(0)
    fresh = Hypernetwork(module, 2, **SETTINGS)
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.zero_()
    saved = io.BytesIO()
    torch.save(hnet.state_dict(), saved)
    saved.seek(0)
    fresh.load_state_dict(torch.load(saved, weights_only=True))
    assert not moved(state(hnet), fresh)
    assert [token.requires_grad for token in fresh.task_tokens] == [False, True]
    hnet.eval(), fresh.eval()
    assert_same(fresh.run(*args, task=1, **kwargs), hnet.run(*args, task=1, **kwargs))


def sizes(module, compute, *args, **kwargs):
    """Standard deviations of what layers give, in order."""
    found = []

    def note(_, __, out):
        found.append((out if isinstance(out, torch.Tensor) else out[0]).std().item())

    kinds = (nn.Linear, nn.Conv2d, nn.GroupNorm, nn.RNNBase, nn.MultiheadAttention, nn.LayerNorm)
    hooks = [m.register_forward_hook(note) for m in module.modules() if isinstance(m, kinds)]
    compute(*args, **kwargs)
    for hook in hooks:
        hook.remove()
    return torch.tensor(found)


@pytest.mark.parametrize(
    "kind",
    [
        "mlp",
        "convolutional lenet",
        "depthwise, group norm",
        "gru",
        "bidirectional lstm",
        "transformer on patches",
    ],
)
def test_activations_start_at_the_modules_own_size_layer_by_layer(kind):
    """In the geometric mean over 16 starts: single ones vary by a factor that grows with depth."""
    ratios = []
    for _ in range(16):
        module, args, _ = KINDS[kind]()
        hnet = Hypernetwork(module, 1, num_chunks=2)
        ours = sizes(hnet.target, hnet.run, *args, task=0)
        ratios.append(ours / sizes(module, module, *args))
    mean = torch.stack(ratios).log().mean(0).exp()
    assert ((mean > 0.6) & (mean < 1.6)).all(), mean


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize(
    "kind", ["mlp", "transformer on patches", "depthwise, group norm", "scalar", "frozen part"]
)
def test_many_tasks_at_once_are_each_as_alone(kind):
    module, args, _ = KINDS[kind]()
    hnet = Hypernetwork(module, 3, **SETTINGS).eval()
    together = vmap(hnet.run_target, in_dims=(0, None))(hnet.weights_of([2, 0]), *args)
    torch.testing.assert_close(together[0], hnet.run(*args, task=2), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together[1], hnet.run(*args, task=0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["mlp", "batch norm", "frozen part"])
def test_a_run_compiles_in_one_piece(kind):
    module, args, _ = KINDS[kind]()
    hnet = Hypernetwork(module, 2, **SETTINGS).eval()
    compiled = torch.compile(hnet.run, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(*args, task=1), hnet.run(*args, task=1))


class Recomputes(nn.Module):
    def __init__(self, again):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
        self.again = again

    def forward(self, x):
        return checkpoint(self.layers, x, use_reentrant=False) if self.again else self.layers(x)


def test_modules_that_recompute_work_when_attached_and_never_silently_go_wrong():
    x, gradients = torch.randn(6, 4), []
    for again in (False, True):
        torch.manual_seed(0)
        hnet = Hypernetwork(Recomputes(again), 1, **SETTINGS)
        net = hnet.materialize(0, attached=True)
        net(x).square().sum().backward()
        gradients.append([p.grad for p in hnet.parameters()])
    assert_same(*gradients)
    loss = hnet.run(x, task=0).square().sum()
    with pytest.raises(RuntimeError):
        loss.backward()


class Centred(nn.Module):
    """Assigns its buffer after having used it, as DINO does with its centre."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.register_buffer("centre", torch.ones(4))

    def forward(self, x):
        y = self.layer(x) * self.centre
        self.centre = 0.9 * self.centre + 0.1 * x.detach().mean(0)
        return y


def test_a_buffer_assigned_after_use_leaves_the_graph_as_it_was():
    hnet = Hypernetwork(Centred(), 2, hnet_hidden=(8,))
    x, other = torch.randn(2, 4), hnet(1)["centre"].clone()
    hnet.run(x, task=0).sum().backward()
    assert torch.allclose(hnet(0)["centre"], 0.9 + 0.1 * x.mean(0))
    assert torch.equal(hnet(1)["centre"], other)
    assert "kept.tasks.0.centre" in hnet.state_dict()
    weights = hnet(0)
    hnet.run_target(weights, x)
    assert torch.equal(weights["centre"], hnet(0)["centre"])


class Remembers(nn.Module):
    """Keeps what its forward made, as attention maps are kept."""

    def __init__(self):
        super().__init__()
        self.layer, self.seen = nn.Linear(4, 4), []

    def forward(self, x):
        self.last = self.layer(x)
        self.seen.append(self.last)
        return self.last.relu()


def test_what_a_forward_kept_is_no_obstacle_to_a_copy():
    hnet, x = Hypernetwork(Remembers(), 1, hnet_hidden=(8,)), torch.randn(2, 4)
    output = hnet.run(x, task=0)
    output.sum().backward()
    for network in (hnet.materialize(0), copy.deepcopy(hnet).materialize(0)):
        assert torch.equal(network(x), output)
        assert hnet.target.last.grad_fn is not None
