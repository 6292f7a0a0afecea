"""The penalty: zero at the snapshot, a plain sum away from it, sampled kinds equal on average."""

import copy
import itertools

import pytest
import torch

from hnetlib import snapshots as snapshots_module
from hnetlib import squares
from hnetlib.hypernet import Hypernetwork
from hnetlib.least_change import LeastChange
from hnetlib.regularizer import TaskRegularizer
from hnetlib.snapshots import Features, GramRows, RemadeRows, StoredRows
from hnetlib.targets import MLP

OLD_TASKS, CHUNKS = 3, 4


def learned(snapshot="before_task", penalty="all", penalty_size=2):
    """A float64 hypernetwork with three old tasks, moved away from their snapshots."""
    torch.manual_seed(0)
    hnet = Hypernetwork(MLP((6, 5, 3)), 5, num_chunks=CHUNKS, hnet_hidden=(9,)).double()
    regularizer = TaskRegularizer(
        hnet, snapshot=snapshot, penalty=penalty, penalty_size=penalty_size
    )
    for task in range(OLD_TASKS):
        with regularizer.learning(task):
            pass
    regularizer._begin(OLD_TASKS)  # as `learning`, for the rest of a test
    return hnet, regularizer


def same_but_exact(regularizer):
    """A regulariser over all pairs with the tokens and snapshots of another."""
    exact = copy.copy(regularizer)
    exact.kind = "all"
    return exact


def with_old_tasks(hnet, num_old=1, **settings):
    """A regulariser that is in the middle of the task after some old ones."""
    regularizer = TaskRegularizer(hnet, old_tasks=range(num_old), **settings)
    regularizer._begin(num_old)
    return regularizer


def move(hnet, size=0.1):
    with torch.no_grad():
        for parameter in hnet.parameters():
            if parameter.requires_grad:
                parameter += size * torch.randn_like(parameter)


def gradients(hnet, value):
    parameters = [p for p in hnet.parameters() if p.requires_grad]
    return torch.autograd.grad(value, parameters, allow_unused=True)


@pytest.mark.parametrize("snapshot", ["before_task", "at_learning"])
@pytest.mark.parametrize("penalty", ["all", "tasks", "rows"])
def test_zero_at_the_snapshot_and_positive_away_from_it(snapshot, penalty):
    hnet, regularizer = learned(snapshot, penalty)
    assert regularizer.penalty() < 1e-24  # rows are multiplied in another order: rounding, squared
    move(hnet)
    assert regularizer.penalty() > 1e-3


@pytest.mark.parametrize("penalty", ["all", "tasks", "rows"])
def test_bf16_leaves_the_penalty_in_full_precision(penalty):
    """Rounding weights to bf16 moves them further than a step does: it would be penalised."""
    torch.manual_seed(0)
    hnet = Hypernetwork(MLP((6, 5, 3)), 2, num_chunks=CHUNKS, hnet_hidden=(9,))
    regularizer = with_old_tasks(hnet, penalty=penalty, penalty_size=2)
    pairs = regularizer.draw(torch.Generator().manual_seed(0))
    for size in (0.0, 1e-4):
        move(hnet, size)
        exact = regularizer.penalty_over(pairs)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            weights, together = regularizer.weights_and_penalty(pairs)
            assert torch.equal(exact, regularizer.penalty_over(pairs))
        torch.testing.assert_close(together, exact, rtol=1e-4, atol=1e-10)
        name, rounded = next(iter(weights.items()))
        assert not torch.equal(rounded, hnet(1)[name])


def test_zero_without_old_tasks():
    hnet = Hypernetwork(MLP((6, 5, 3)), 2, hnet_hidden=(9,))
    assert with_old_tasks(hnet, 0).penalty() == 0


def test_equals_the_sum_by_hand_over_the_used_weights():
    hnet, regularizer = learned()
    before = [{n: w.detach().clone() for n, w in hnet(s).items()} for s in range(OLD_TASKS)]
    assert hnet.num_weights % CHUNKS, "the last chunk must have padding for this test to see it"
    move(hnet)
    by_hand = 0.0
    for task in range(OLD_TASKS):
        for name, weight in hnet(task).items():
            by_hand += (weight - before[task][name]).square().sum() / OLD_TASKS
    torch.testing.assert_close(regularizer.penalty(), by_hand)


@pytest.mark.parametrize(("penalty", "population"), [("tasks", 3), ("rows", 12)])
def test_sampled_kinds_equal_all_in_expectation_with_their_gradients(
    monkeypatch, penalty, population
):
    """Averages over every possible draw of two, instead of many random ones: exact."""
    hnet, regularizer = learned(penalty=penalty)
    move(hnet)
    exact = same_but_exact(regularizer)
    draws = list(itertools.combinations(range(population), 2))
    values = []
    for draw in draws:
        monkeypatch.setattr(regularizer, "_choose", lambda *_, draw=draw: torch.tensor(draw))
        values.append(regularizer.penalty())
    mean = sum(values) / len(draws)
    torch.testing.assert_close(mean, exact.penalty())
    for ours, theirs in zip(gradients(hnet, mean), gradients(hnet, exact.penalty()), strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            torch.testing.assert_close(ours, theirs)


def test_draws_are_uniform_and_without_replacement():
    _, regularizer = learned(penalty="rows", penalty_size=5)
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([regularizer._choose(12, generator) for _ in range(2000)])
    assert all(len(set(draw)) == 5 for draw in draws.tolist())
    counts = draws.flatten().bincount(minlength=12)
    assert (counts - 2000 * 5 / 12).abs().max() < 5 * (2000 * 5 / 12) ** 0.5


def test_a_draw_larger_than_the_population_is_exact():
    hnet, regularizer = learned(penalty="rows", penalty_size=1000)
    move(hnet)
    exact = same_but_exact(regularizer)
    torch.testing.assert_close(regularizer.penalty(), exact.penalty())


def test_the_two_snapshots_differ_once_an_old_task_has_drifted():
    results = {}
    for snapshot in ("at_learning", "before_task"):
        hnet, regularizer = learned(snapshot)
        learned_weights = hnet(0)["layers.0.weight"].detach().clone()
        move(hnet)  # drift while the fourth task is learned
        drifted = hnet(0)["layers.0.weight"].detach().clone()
        regularizer.task = None
        regularizer._make_old(3)
        regularizer._begin(4)
        rows = regularizer.snapshots.rows(torch.arange(CHUNKS)) * hnet.scale + hnet.shift
        held = hnet.unflatten(rows.flatten()[: hnet.num_weights])
        results[snapshot] = held["layers.0.weight"]
        expected = learned_weights if snapshot == "at_learning" else drifted
        torch.testing.assert_close(results[snapshot], expected)
    assert not torch.equal(results["at_learning"], results["before_task"])


def test_no_gradient_reaches_frozen_tokens_or_snapshots():
    hnet, regularizer = learned("at_learning")
    move(hnet)
    regularizer.penalty().backward()
    assert all(hnet.task_tokens[task].grad is None for task in range(OLD_TASKS))
    assert not regularizer.snapshots.stored.requires_grad
    assert hnet.chunk_tokens.grad.abs().max() > 0


def test_wrong_settings_say_what_was_expected():
    hnet = Hypernetwork(MLP((6, 5, 3)), 1, hnet_hidden=(9,))
    with pytest.raises(ValueError, match="penalty: expected one of rows, tasks, all, got 'most'"):
        TaskRegularizer(hnet, penalty="most")
    with pytest.raises(ValueError, match="snapshot: expected one of"):
        TaskRegularizer(hnet, snapshot="never")
    with pytest.raises(ValueError, match="penalty_size: expected at least 1, got 0"):
        TaskRegularizer(hnet, penalty_size=0)


@pytest.fixture
def exact_forms(monkeypatch):
    """Makes the regulariser take one of the three forms of the exact penalty at any size."""

    def choose(form):
        monkeypatch.setattr(snapshots_module, "FEW_ROWS", 10**6 if form == "plain" else 0)
        monkeypatch.setattr(snapshots_module, "gram_is_cheaper", lambda *_: form == "gram")
        monkeypatch.setattr(squares, "BLOCK", 5)

    return choose


@pytest.mark.parametrize("distance", [1e-6, 1e-4, 1e-2, 1.0])
@pytest.mark.parametrize("form", ["blocks", "gram"])
def test_cheaper_exact_forms_keep_value_and_gradient(exact_forms, form, distance):
    """Against the plain sum, in float64, near the snapshot and far from it."""
    found = []
    for one in ("plain", form):
        exact_forms(one)
        hnet, regularizer = learned()
        assert type(regularizer.snapshots) is (GramRows if one == "gram" else StoredRows)
        torch.manual_seed(1)
        move(hnet, distance)
        value = regularizer.penalty()
        found.append([value, *(g for g in gradients(hnet, value) if g is not None)])
    for ours, plain in zip(*reversed(found), strict=True):
        # the plain difference itself keeps no more digits than the distance leaves of 16
        torch.testing.assert_close(ours, plain, rtol=1e-14 / distance + 1e-10, atol=0)


def test_few_rows_take_the_gram_form_too_where_the_last_layer_is_narrow():
    """As in `paper10`: 25 features, so that 216 rows of 75,000 numbers are many."""
    torch.manual_seed(0)
    hnet = Hypernetwork(MLP((64, 60, 3)), 6, num_chunks=8, hnet_hidden=(4,))
    regularizer = with_old_tasks(hnet, 5, penalty="all")
    assert 20 < len(regularizer.snapshots.base) < len(regularizer.draw()) == 40
    before = [hnet.generate(hnet.task_tokens[s]).detach() for s in range(5)]
    move(hnet, 0.01)
    now = [hnet.generate(hnet.task_tokens[s]) for s in range(5)]
    by_hand = sum((a - b).square().sum() for a, b in zip(now, before, strict=True)) / 5
    torch.testing.assert_close(regularizer.penalty(), by_hand, rtol=1e-4, atol=0)
    _, penalty = regularizer.weights_and_penalty()
    torch.testing.assert_close(penalty, by_hand, rtol=1e-4, atol=0)


def test_the_gram_form_takes_chunks_of_one_scale_and_blocks_take_the_rest(exact_forms):
    exact_forms("gram")
    hnet, regularizer = learned()
    uniform = [len(set(row.tolist())) == 1 for row in hnet.scale]
    assert 0 < sum(uniform) < CHUNKS
    assert len(regularizer.snapshots.base) == OLD_TASKS * sum(uniform)
    assert sorted(regularizer.draw().tolist()) == list(range(OLD_TASKS * CHUNKS))


@pytest.mark.parametrize("penalty", ["all", "tasks", "rows"])
def test_features_are_snapshots_enough_where_the_last_layer_stays(penalty):
    """Value and gradient as with stored rows, while only what comes before that layer moves."""
    found = []
    for still in (False, True):
        torch.manual_seed(0)
        hnet = Hypernetwork(MLP((6, 5, 3)), 4, num_chunks=CHUNKS, hnet_hidden=(9,)).double()
        least_change = LeastChange(hnet) if still else None
        settings = {"penalty": penalty, "penalty_size": 2, "least_change": least_change}
        regularizer = with_old_tasks(hnet, OLD_TASKS, **settings)
        assert isinstance(regularizer.snapshots, Features if still else StoredRows)
        assert regularizer.penalty() < 1e-24
        moving = [*hnet.body.parameters(), hnet.chunk_tokens]
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in moving:
                parameter += 0.1 * torch.randn_like(parameter)
        pairs = regularizer.draw(torch.Generator().manual_seed(2))
        weights, value = regularizer.weights_and_penalty(pairs)
        assert value > 1e-3
        loss = value + sum(weight.square().sum() for weight in weights.values())
        found.append([value, *torch.autograd.grad(loss, [*moving, hnet.task_tokens[3]])])
    for stored, features in zip(*found, strict=True):
        torch.testing.assert_close(features, stored, rtol=1e-9, atol=1e-12)


def test_snapshots_too_large_to_store_are_made_again(monkeypatch):
    values = []
    for limit in (2**28, 0):
        monkeypatch.setattr(snapshots_module, "SNAPSHOT_BYTES", limit)
        hnet, regularizer = learned(penalty="rows", penalty_size=7)
        torch.manual_seed(1)
        move(hnet)
        values.append(regularizer.penalty(torch.Generator().manual_seed(0)))
        assert type(regularizer.snapshots) is (StoredRows if limit else RemadeRows)
    torch.testing.assert_close(*values)


@pytest.mark.parametrize("penalty", ["all", "tasks", "rows"])
@pytest.mark.parametrize("few_rows", [0, 512])
def test_one_pass_gives_the_same_weights_and_penalty_as_two(monkeypatch, penalty, few_rows):
    monkeypatch.setattr(snapshots_module, "FEW_ROWS", few_rows)
    hnet, regularizer = learned(penalty=penalty)
    move(hnet)
    pairs = regularizer.draw(torch.Generator().manual_seed(0))
    weights, value = regularizer.weights_and_penalty(pairs)
    torch.testing.assert_close(value, regularizer.penalty_over(pairs))
    for name, weight in hnet(3).items():
        torch.testing.assert_close(weights[name], weight)


@pytest.mark.parametrize("frozen_layer", [False, True])
def test_blocks_give_no_gradient_to_a_layer_that_does_not_learn(monkeypatch, frozen_layer):
    monkeypatch.setattr(snapshots_module, "FEW_ROWS", 0)
    hnet, regularizer = learned("at_learning")
    move(hnet)
    hnet.output_layer.requires_grad_(not frozen_layer)
    products, original = [], torch.Tensor.addmm_

    def counted(*args, **kwargs):
        products.append(1)
        return original(*args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "addmm_", counted)
    regularizer.penalty().backward()
    assert bool(products) != frozen_layer
    assert (hnet.output_layer.weight.grad is None) == frozen_layer
    assert hnet.chunk_tokens.grad.abs().max() > 0


def ready(num_tasks=3, **settings):
    hnet = Hypernetwork(MLP((6, 5, 3)), num_tasks, num_chunks=CHUNKS, hnet_hidden=(9,))
    return hnet, TaskRegularizer(hnet, penalty_size=3, **settings)


def train(hnet, regularizer, task, optimizer=None, steps=2, run=None):
    optimizer = optimizer or torch.optim.SGD(hnet.parameters_of(task), lr=0.01)
    for _ in range(steps):
        output = hnet.run(torch.ones(2, 6), task=task if run is None else run)
        loss = output.square().sum() + regularizer.penalty()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def test_learning_freezes_the_token_and_makes_the_task_old():
    hnet, regularizer = ready()
    with regularizer.learning(0):
        train(hnet, regularizer, 0)
        assert regularizer.old_tasks == []
    assert regularizer.old_tasks == [0]
    assert not hnet.task_tokens[0].requires_grad
    assert hnet.task_tokens[1].requires_grad


def test_a_task_that_failed_is_not_old():
    hnet, regularizer = ready()
    with pytest.raises(KeyboardInterrupt), regularizer.learning(0):
        raise KeyboardInterrupt
    assert regularizer.old_tasks == []
    assert hnet.task_tokens[0].requires_grad
    with regularizer.learning(0):
        train(hnet, regularizer, 0)
    assert regularizer.old_tasks == [0]


@pytest.mark.parametrize(
    "call",
    [
        lambda keep: keep.penalty(),
        lambda keep: keep.draw(),
        lambda keep: keep.weights_and_penalty(),
        lambda keep: keep.penalty_over(torch.tensor([0])),
    ],
)
def test_the_penalty_outside_learning_is_an_error(call):
    _, regularizer = ready()
    with regularizer.learning(0):
        pass
    with pytest.raises(RuntimeError, match=r"expected within `with regularizer.learning\(task\):`"):
        call(regularizer)


def test_wrong_orders_of_calls_are_errors():
    hnet, regularizer = ready()
    with regularizer.learning(0), pytest.raises(RuntimeError, match="task 0 is still being"):
        regularizer.learning(1).__enter__()
    with pytest.raises(ValueError, match=r"learning\(0\): expected a task that is not learned yet"):
        regularizer.learning(0).__enter__()
    with pytest.raises(IndexError, match="one of the 3"):
        regularizer.learning(3).__enter__()
    another = TaskRegularizer(hnet)
    with pytest.raises(RuntimeError, match=r"tokens of tasks \[0\] are frozen.*old_tasks=\[0\]"):
        another.learning(1).__enter__()
    with TaskRegularizer(hnet, old_tasks=[0]).learning(1):
        pass


def test_running_another_task_than_the_one_learned_is_an_error():
    hnet, regularizer = ready()
    with (
        pytest.raises(RuntimeError, match=r"learning\(0\): only \[1\] were run"),
        regularizer.learning(0),
    ):
        train(hnet, regularizer, 0, run=1)
    assert regularizer.old_tasks == []


def test_a_token_no_optimizer_knows_is_an_error():
    hnet, regularizer = ready(num_tasks=1)
    optimizer = torch.optim.SGD(hnet.parameters(), lr=0.01)
    with regularizer.learning(0):
        train(hnet, regularizer, 0, optimizer)
    task = hnet.add_task()
    with (
        pytest.raises(RuntimeError, match=r"did not move.*hnet.parameters_of\(1\)"),
        regularizer.learning(task),
    ):
        train(hnet, regularizer, task, optimizer)


def test_a_generator_whose_units_are_all_dead_is_not_the_optimizers_fault():
    hnet, regularizer = ready(num_tasks=1)
    with torch.no_grad():
        hnet.body[-2].bias.fill_(-1e3)
    with regularizer.learning(0):
        train(hnet, regularizer, 0)
    assert regularizer.old_tasks == [0]


FORMS = {
    "stored": ({}, {}),
    "at learning": ({"snapshot": "at_learning"}, {}),
    "remade": ({}, {"SNAPSHOT_BYTES": 0}),
    "gram": ({"penalty": "all"}, {"gram_is_cheaper": lambda *_: True}),
    "least change": ({}, {}),
}


def start(num_tasks, settings, with_least_change):
    torch.manual_seed(0)
    hnet = Hypernetwork(MLP((6, 5, 3)), num_tasks, num_chunks=CHUNKS, hnet_hidden=(9,))
    least_change = LeastChange(hnet) if with_least_change else None
    return hnet, TaskRegularizer(hnet, penalty_size=3, least_change=least_change, **settings)


def take_steps(hnet, keep, task, steps):
    """Steps that depend on their number alone."""
    optimizer = torch.optim.SGD(hnet.parameters_of(task), lr=0.01)
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        inputs = torch.randn(2, 6, generator=generator)
        loss = hnet.run(inputs, task=task).square().sum() + keep.penalty(generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if keep.least_change:
            keep.least_change.step(0.01)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("stop", [(1, 0), (1, 2), (2, 3)])
def test_stopped_in_the_middle_of_a_task_goes_on_as_if_never_stopped(monkeypatch, form, stop):
    settings, patches = FORMS[form]
    for name, value in patches.items():
        monkeypatch.setattr(snapshots_module, name, value)
    whole, keep = start(3, settings, form == "least change")
    for task in range(3):
        with keep.learning(task):
            for step in range(4):
                if (task, step) == stop:
                    saved = copy.deepcopy((whole.state_dict(), keep.state_dict()))
                take_steps(whole, keep, task, [step])
    hnet, keep = start(0, settings, form == "least change")
    keep.load_state_dict(saved[1])
    hnet.load_state_dict(saved[0])
    assert keep.state_dict()["task"] == stop[0], "saving it again loses nothing"
    for task in range(stop[0], 3):
        with keep.learning(task):
            take_steps(hnet, keep, task, range(stop[1] if task == stop[0] else 0, 4))
    assert keep.old_tasks == [0, 1, 2]
    for (name, one), other in zip(whole.named_parameters(), hnet.parameters(), strict=True):
        assert torch.equal(one, other), name
        assert one.isfinite().all()


def test_a_state_that_does_not_fit_is_refused():
    _, keep = ready()
    with keep.learning(0):
        state = keep.state_dict()
        with pytest.raises(RuntimeError, match="task 0 is being learned here"):
            keep.load_state_dict(state)
    _, other = ready(snapshot="at_learning")
    with pytest.raises(ValueError, match="expected a state with 'at_learning', got 'before_task'"):
        other.load_state_dict(state)
    hnet, keep = ready()
    with pytest.raises(ValueError, match="least_change: expected as in the state"):
        TaskRegularizer(hnet, least_change=LeastChange(hnet)).load_state_dict(state)
    keep.load_state_dict(state)
    with pytest.raises(RuntimeError, match="in the middle of task 0"):
        keep.learning(1).__enter__()
