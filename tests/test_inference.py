"""Not told the task: rules, and what is counted of them."""

import json

import pytest
import torch
from torch import nn

import hnetlib
from hnetlib import Hypernetwork
from hnetlib.experiment import inference, paths
from hnetlib.experiment.data import load_data
from hnetlib.experiment.hnet_learner import Learner
from hnetlib.experiment.hnets import load_hnet
from hnetlib.experiment.learner import train_or_load
from hnetlib.experiment.stream_learner import accuracy_on, learn
from hnetlib.experiment.streams import RelabelledTasks, RotatedTasks, SplitTasks
from hnetlib.experiment.tasks import PermutedTasks
from hnetlib.targets import MLP
from report import many_tasks, untold

ALL = {name: rule for rules in inference.RULES.values() for name, rule in rules.items()}


def test_logits_of_all_tasks_are_those_of_each():
    hnet = Hypernetwork(MLP((12, 8, 3)), num_tasks=4, num_chunks=2)
    images = torch.rand(5, 12)
    logits = inference.logits_of_all(hnet, images, 4)
    assert logits.shape == (4, 5, 3)
    for task in range(4):
        torch.testing.assert_close(logits[task], hnet.run(images, task=task))
    assert hnet.training  # as before
    assert hnet.target.training


def test_column_energy_is_the_variance_of_each_pixels_weights():
    hnet = Hypernetwork(MLP((12, 8, 3)), num_tasks=2)
    energy = inference.column_energy(hnet, 2)
    weight = hnet(1)["layers.0.weight"]
    torch.testing.assert_close(energy[1, 7], weight[:, 7].var())
    assert energy.shape == (2, 12)


def said(logits):
    nothing = torch.zeros(0)
    return inference.Said(nothing, torch.tensor(logits), None, nothing, nothing)


def test_the_rule_by_weights_alone_finds_what_it_finds_beside_the_others(tiny):
    few = {"steps_per_task": 1, "pixels_with_token": 0}
    config = tiny("tokens-small", num_tasks=4, target="mlp-32", **few)
    learner = Learner(config, PermutedTasks(load_data("mnist5k"), 4, 0))
    for task in range(4):
        learner.learn_task(task)
    both = inference.evaluate(learner.hnet, learner.tasks, inference.RULES["weights"], 50, 16)
    alone = inference.evaluate_by_weights(learner.hnet, learner.tasks, 50, 16)
    assert alone == both["light on energy"]
    assert 0 < alone.task < 1  # so few steps that some images are taken for another task's


def test_a_task_is_asked_for_its_own_classes_alone():
    """The outputs that it has besides were never trained, and may say anything."""
    data = load_data("mnist5k")
    stream = SplitTasks(data, ((0, 1), (2, 3, 4)))
    torch.manual_seed(0)
    module = MLP((784, 16, 10))
    hnet = Hypernetwork(module, 2, hnet_hidden=(32,), num_chunks=4)
    learn(hnet, stream, steps=30, batch_size=32, lr=3e-3, beta=0.1)
    told = sum(accuracy_on(hnet, stream, task, None) for task in range(2)) / 2
    least = min(len(stream.eval_set(task)[1]) for task in range(2))
    found = inference.evaluate(hnet, stream, inference.RULES["confidence"], least, 16)
    by_weights = inference.evaluate_by_weights(hnet, stream, least, 16)
    for one in (*found.values(), by_weights):
        assert one.told == pytest.approx(told, abs=0.02)
        assert 0 <= one.task <= 1
    images = stream.eval_set(0)[0][:5]
    logits = inference.among_classes(inference.logits_of_all(hnet, images, 2), stream)
    assert logits.isfinite().sum(-1).tolist() == [[2] * 5, [3] * 5]


@pytest.mark.parametrize("name", inference.RULES["confidence"])
def test_rules_by_confidence_prefer_who_is_sure(name):
    sure, unsure = [[4.0, 0.0, 0.0]], [[1.0, 0.9, 1.1]]
    assert ALL[name](said([unsure, sure]))[:, 0].argmax() == 1


def test_a_wrong_task_scores_its_batch_zero():
    labels = torch.tensor([0, 1, 0, 1])
    logits = nn.functional.one_hot(labels, 2).float().expand(2, -1, -1).clone()  # [2, 4, classes]
    logits[1] = logits[1].flip(-1)  # the other task's network is always wrong
    logits[0, 3] = logits[0, 3].flip(-1)  # and this one once
    scores = torch.tensor([[1.0, 1.0, 0.0, 1.0], [0.0, 0.0, 1.0, 0.0]])
    row = inference._row(scores, logits.argmax(-1) == labels, task=0, batch=2)
    # images 0, 1 both decide rightly, of 2, 3 half, where half of the classes are right
    assert row == [0.75, 0.5, 0.5, 0.75, (2 * 1 + 2 * 0.5 * 0.5) / 4]


def test_more_images_add_up():
    scores = torch.tensor([[1.0, 0.0, 3.0, 0.0], [0.0, 2.0, 0.0, 2.5]])
    assert inference.tasks_by_number_of_images(scores, 0, [1, 2, 4]) == [0.5, 0.5, 0.0]


def test_every_rule_finds_tasks_of_the_committed_hypernetwork():
    hnet, data = hnetlib.load("laptop"), load_data("mnist5k")
    tasks = PermutedTasks(data, 10, hnet.config.permutation_seed)
    for name, found in inference.evaluate(hnet, tasks, ALL, num_images=200, batch=128).items():
        assert found.task > 0.9, name
        assert found.label > 0.9, name
        assert found.told > 0.94


def test_a_class_none_tells_tasks_apart_and_is_no_answer(tiny):
    config = tiny("tokens-small", num_tasks=2, steps_per_task=60, target="mlp-32", noise_share=0.25)
    run = train_or_load(config, progress=False)
    hnet, tasks = load_hnet(run), PermutedTasks(load_data("mnist5k"), 2)
    assert hnet.run(torch.rand(1, 784), task=0).shape == (1, 11)
    (found,) = inference.evaluate(hnet, tasks, inference.NOT_NONE, 200, 128).values()
    assert found.task > 0.95
    assert run.results["acc"] > 0.8


def test_scores_are_those_that_are_counted():
    hnet = Hypernetwork(MLP((784, 8, 10)), num_tasks=3)
    tasks = PermutedTasks(load_data("mnist5k"), 3)
    scores = inference.score_all(hnet, tasks, ALL, num_images=20)
    found = inference.evaluate(hnet, tasks, ALL, num_images=20, batch=20)
    for name, some in scores.items():
        assert some.shape == (3, 3, 20)
        hits = some.argmax(1) == torch.arange(3)[:, None]
        assert found[name].task == pytest.approx(float(hits.float().mean())), name


@pytest.mark.parametrize("stream", [RotatedTasks, RelabelledTasks, SplitTasks], ids=str)
def test_mean_images_are_those_of_any_stream(stream):
    data = load_data("mnist5k")
    given = {RotatedTasks: (0.0, 90.0), RelabelledTasks: 2, SplitTasks: ((0, 1), (2, 3))}[stream]
    means = inference.mean_images(stream(data, given))
    assert means.shape == (2, 784)
    mine = data.train_labels < 2 if stream is SplitTasks else data.train_labels >= 0
    torch.testing.assert_close(means[0], data.train_images[mine].mean(0), atol=1e-5, rtol=0)


def test_recorded_runs_say_what_chapter_10_tabulates(tiny, monkeypatch, tmp_path):
    config = tiny("tokens-small", num_tasks=2, steps_per_task=30, target="mlp-32")
    monkeypatch.setattr(untold, "planned", lambda profile: [("hnet", config)])
    monkeypatch.setattr(untold, "load_data", lambda *_: load_data("mnist5k"))
    monkeypatch.setattr(paths, "reference_dir", lambda profile: tmp_path / profile)
    asked = ["--profile", "tokens-small", "--num-images", "20"]
    assert untold.main(asked) == 1  # no run is finished
    train_or_load(config, progress=False)
    (tmp_path / "tokens-small").mkdir()
    assert untold.main(asked) == 0
    rows = json.loads((tmp_path / "tokens-small" / "untold.json").read_text())
    assert [row["rule"] for row in rows] == list(ALL)
    other = [row | {"seed": 1} for row in rows]  # a seed whose run is on another machine
    (tmp_path / "tokens-small" / "untold.json").write_text(json.dumps(other + rows))
    assert untold.main(asked) == 0
    assert json.loads((tmp_path / "tokens-small" / "untold.json").read_text()) == rows + other
    assert {"seed", "asked", "task", "label", "batch", "told", "commit"} <= rows[0].keys()


def test_many_tasks_are_summed_up_told_and_not_told(tiny, monkeypatch, tmp_path):
    def small(profile, dataset, **settings):
        return tiny(profile, steps_per_task=20, target="mlp-32", **settings)

    monkeypatch.setattr(many_tasks, "make_config", small)
    monkeypatch.setattr(paths, "reference_dir", lambda profile: tmp_path / profile)
    for seed in ("1", "0", "1"):
        assert many_tasks.main(["--num-tasks", "3", "--seed", seed, "--workers", "1"]) == 0
    rows = json.loads((tmp_path / "many" / "tasks.json").read_text())
    assert [(row["seed"], row["num_tasks"]) for row in rows] == [(0, 3), (1, 3)]
    assert all(row["largest_change"] == 0 for row in rows)
    assert all(0.3 < row["untold"]["label"] <= row["untold"]["told"] for row in rows)


def test_rules_by_confidence_need_logits_alone_and_numbers():
    tasks = RotatedTasks(load_data("mnist5k"), (0.0, 90.0))
    hnet = Hypernetwork(nn.Sequential(nn.Linear(784, 10)), 2, hnet_hidden=(4,))
    rules = inference.RULES["confidence"]
    found = inference.evaluate(hnet, tasks, rules, 8, 4)
    assert all(0 <= one.task <= 1 for one in found.values())
    with torch.no_grad():
        hnet.task_tokens[1].fill_(torch.nan)
    found = inference.evaluate(hnet, tasks, rules, 8, 4)
    assert {one.task for one in found.values()} == {0.5}  # always the one with numbers
    with pytest.raises(ValueError, match="expected a module that says its `pixel_weight`"):
        inference.evaluate(hnet, tasks, inference.RULES["weights"], 8, 4)
    with pytest.raises(ValueError, match="num_images: expected a whole number of at least 1"):
        inference.evaluate(hnet, tasks, rules, 0, 4)
    few = Hypernetwork(nn.Linear(784, 3), 2, hnet_hidden=(4,))
    with pytest.raises(ValueError, match="expected a module with logits of 10 classes, got 3"):
        inference.evaluate(few, tasks, rules, 8, 4)
