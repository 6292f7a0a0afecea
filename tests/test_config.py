"""Settings: profiles, explicit values, and one clear line for each wrong one."""

import json
from dataclasses import fields

import numpy as np
import pytest

from hnetlib.experiment.config import Config, defaults, make_config
from hnetlib.experiment.profiles import PROFILES


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("dataset", ["mnist", "mnist5k"])
def test_every_profile_is_sound_on_either_data_set(profile, dataset):
    config = Config(**defaults(profile, dataset))
    assert (config.profile, config.dataset) == (profile, dataset)


def test_an_explicit_value_wins_and_none_means_the_profiles():
    config = make_config("smoke", "mnist5k", num_tasks=7, beta=None, hnet_hidden=[5, 6])
    assert config.num_tasks == 7
    assert config.beta == Config.beta
    assert config.hnet_hidden == (5, 6)
    assert config.steps_per_task == PROFILES["smoke"]["steps_per_task"]


def test_numbers_of_numpy_are_numbers_and_can_be_written_down():
    of_numpy = make_config(
        "smoke", "mnist5k", num_tasks=np.int64(7), lr=np.float64(0.5), hnet_hidden=np.array([5, 6])
    )
    assert json.dumps(of_numpy.as_dict()) == json.dumps(
        make_config("smoke", "mnist5k", num_tasks=7, lr=0.5, hnet_hidden=(5, 6)).as_dict()
    )


def test_the_first_task_gets_its_factor():
    config = make_config("smoke", "mnist5k", steps_per_task=10, first_task_factor=4)
    assert [config.steps(task) for task in range(3)] == [40, 10, 10]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_tasks": 0}, "num_tasks: expected a whole number of at least 1, got 0"),
        ({"num_tasks": 2.5}, "num_tasks: expected a whole number of at least 1, got 2.5"),
        ({"steps_per_task": True}, "steps_per_task: expected a whole number"),
        ({"beta": -0.1}, "beta: expected a number of at least 0, got -0.1"),
        ({"beta": float("nan")}, "beta: expected a number of at least 0, got nan"),
        ({"beta": "a tenth"}, "beta: expected a number of at least 0, got 'a tenth'"),
        ({"lr": 0}, "lr: expected a number above 0, got 0"),
        ({"num_chunks": 10**6}, "at most one chunk for each of the target's 25450 weights"),
        ({"penalty": "most"}, "penalty: expected one of rows, tasks, all, got 'most'"),
        ({"snapshot": "never"}, "snapshot: expected one of before_task, at_learning"),
        ({"split": "train"}, "split: expected one of test, validation, got 'train'"),
        ({"seed": 2**64 - 1}, "seed: expected a whole number from 0 to 9223372036854775807"),
        ({"target": 32}, "target: expected a name, got 32"),
        ({"look_ahead": 1}, "look_ahead: expected True or False, got 1"),
        ({"target": "resnet"}, 'target: expected "mlp-<size>'),
        ({"hnet_hidden": ()}, "hnet_hidden: expected layer sizes of at least 1"),
        ({"hnet_hidden": (5, 0)}, "hnet_hidden: expected layer sizes of at least 1"),
        ({"seed": -1}, "seed: expected a whole number from 0 to 9223372036854775807, got -1"),
        ({"device": "tpu"}, "device: expected cpu or cuda, got 'tpu'"),
        ({"look_ahead": True}, "look_ahead: expected False with least_change, got True"),
        ({"head_optimizer": "shortest_change", "num_chunks": 33}, "units with shortest_change"),
        ({"num_chunks": 33}, "num_chunks: expected at most the last hidden layer's 32 units"),
        ({"damping": 0}, "damping: expected a number above 0, got 0"),
        ({"lr": 1e38}, r"lr: expected at most 1e\+30, got 1e\+38"),
        ({"strength": 1e300}, r"strength: expected at most 1e\+30, got 1e\+300"),
        ({"lr": 1e20, "head_lr_factor": 1e20}, "head_lr_factor: expected at most"),
        ({"strength": -1.0}, "strength: expected a number of at least 0, got -1.0"),
        ({"method": "lwf"}, "method: expected one of hnet, joint-hnet, joint-plain"),
        ({"method": "joint-plain", "batch_size": 2}, "an image for each of the 3 tasks of a batch"),
        ({"method": "joint-hnet", "head_optimizer": "least_change"}, "adam with joint-hnet"),
        ({"method": "separate", "target": "conv-lenet"}, "a dense network with separate"),
        ({"num_tasks": 10**9}, "num_tasks: expected at most 10,000 tasks, got 1000000000"),
        ({"noise_share": 1}, "noise_share: expected 0 to 0.9, with method hnet, got 1"),
        ({"noise_share": 0.2, "method": "si"}, "noise_share: expected 0 to 0.9, with method hnet"),
        ({"threads": 100_000}, "threads: expected at most 1,024, got 100000"),
        ({"cut": "layers.0.weight:1"}, "cut: expected chunks of at most the last hidden layer's"),
        ({"epochs": 3}, "settings: expected names among"),
    ],
)
def test_wrong_settings_are_one_clear_line(settings, message):
    with pytest.raises(ValueError, match=message) as caught:
        make_config("smoke", "mnist5k", **settings)
    assert "\n" not in str(caught.value)


def test_an_unknown_profile_or_data_set_names_the_known_ones():
    with pytest.raises(ValueError, match="profile: expected one of laptop, smoke, laptop-plain"):
        make_config("huge")
    with pytest.raises(ValueError, match="dataset: expected one of auto, mnist, mnist5k"):
        make_config("laptop", "cifar")


def test_wrong_settings_stop_before_data_is_looked_for(monkeypatch):
    def look_for_data(name):
        raise AssertionError("looked for data")

    monkeypatch.setattr("hnetlib.experiment.data.resolve_dataset", look_for_data)
    with pytest.raises(ValueError, match="num_tasks"):
        make_config("laptop", "auto", num_tasks=0)


def test_every_field_is_explained():
    import inspect

    source = inspect.getsource(Config)
    for field in fields(Config):
        _, _, after = source.partition(f"    {field.name}:")
        assert after.split("\n")[1].strip().startswith('"""'), field.name


def test_precision_is_checked_against_the_device():
    with pytest.raises(
        ValueError, match="precision: expected float32 or bf16 on a CPU, got 'tf32'"
    ):
        make_config("smoke", "mnist5k", precision="tf32")
    with pytest.raises(ValueError, match="precision: expected one of float32, tf32, bf16"):
        make_config("smoke", "mnist5k", precision="half")


def test_what_auto_resolves_to_decides_the_steps_unless_they_are_given(monkeypatch):
    monkeypatch.setattr("hnetlib.experiment.data.resolve_dataset", lambda name: "mnist5k")
    assert make_config("laptop").steps_per_task == 100
    assert make_config("laptop", steps_per_task=7).steps_per_task == 7
    assert make_config("laptop", "auto", method="ewc").steps_per_task == 100
    monkeypatch.setattr("hnetlib.experiment.data.resolve_dataset", lambda name: "mnist")
    assert make_config("laptop").steps_per_task == 400
