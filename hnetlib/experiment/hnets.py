"""Hypernetworks of a config: untrained, of a finished run, or of those the repository holds."""

from pathlib import Path

import torch

from hnetlib.experiment import paths
from hnetlib.experiment.config import Config
from hnetlib.experiment.files import DamagedError, RunError, read_tensors, write_tensors
from hnetlib.experiment.runs import Run
from hnetlib.hypernet import Hypernetwork


def build_hnet(config: Config) -> Hypernetwork:
    """The untrained hypernetwork of a config; its starting values depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        hnet = Hypernetwork(
            config.make_target(),
            num_tasks=config.num_tasks,
            num_chunks=config.num_chunks if config.cut == "flat" else 1,
            task_token_dim=config.task_token_dim,
            chunk_token_dim=config.chunk_token_dim,
            hnet_hidden=config.hnet_hidden,
            hnet_activation=config.hnet_activation,
            generate=config.generate,
            cut=config.cut_of_target,
            tokens=config.tokens,
            frequency=config.frequency or None,
        )
    return hnet.to(config.device)


def load_hnet(run: Run) -> Hypernetwork:
    """The trained hypernetwork of a finished run, with its tokens."""
    hnet = build_hnet(run.config)
    state = run.load_checkpoint(run.config.device)
    if state is None or state["num_learned"] < run.config.num_tasks:
        raise RunError(
            f"{run.directory} has its results but not its trained network any more: remove its "
            "metrics.json, and the run is trained again"
        )
    hnet.load_state_dict(state["network"])
    return hnet


def load(profile: str = "laptop") -> Hypernetwork:
    """The hypernetwork of a profile's reference run on MNIST, trained on all its tasks.

    Its tokens are frozen, `hnet.config` holds the settings it was trained with: task t is that of
    `PermutedTasks(data, hnet.config.num_tasks, hnet.config.permutation_seed)`. Kept in half
    precision, returned in float32. FileNotFoundError where the checkout holds none, RunError where
    it is damaged.
    """
    path = _place(profile)
    if not path.is_file():
        there = ", ".join(held()) or "none: an installed package has no runs, a clone of it does"
        raise FileNotFoundError(
            f"profile: expected one with a trained hypernetwork in this checkout ({there}), "
            f"got {profile!r}; python -m hnetlib.train --profile makes one"
        )
    try:
        kept = read_tensors(path)
        hnet = build_hnet(Config.of_record(kept["config"]))
        # the output layer was called head when the first of these were written
        state = {k.replace("head.", "output_layer."): v.float() for k, v in kept["state"].items()}
        hnet.load_state_dict(state)
        if hnet.num_tasks != kept["config"]["num_tasks"]:
            raise KeyError("task_tokens")
    except (DamagedError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        if isinstance(error, RunError) and not isinstance(error, DamagedError):
            raise
        raise RunError(f"{path} is damaged: get it again from the repository") from error
    for task in range(hnet.num_tasks):
        hnet.freeze_token(task)
    hnet.config = Config.of_record(kept["config"])
    return hnet


def held() -> list[str]:
    """Profiles that have a trained hypernetwork in this checkout."""
    return sorted(place.parent.name for place in paths.reference_dir("").glob("*/hnet.pt"))


def save(hnet: Hypernetwork, config: Config) -> Path:
    """Writes down a trained hypernetwork for `load`, in half precision; returns where."""
    # where it ran does not matter to who loads it, and may not be there
    settings = config.as_dict() | {"device": "cpu", "precision": "float32"}
    state = {name: value.cpu().half() for name, value in hnet.state_dict().items()}
    path = _place(config.profile)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(path, {"config": settings, "state": state})
    return path


def _place(profile: str) -> Path:
    return paths.reference_dir(profile) / "hnet.pt"
