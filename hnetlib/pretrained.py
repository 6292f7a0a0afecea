"""Trained hypernetworks that the repository holds: `hnetlib.load("laptop")`."""

from pathlib import Path

from hnetlib import paths
from hnetlib.config import Config
from hnetlib.hypernet import Hypernetwork
from hnetlib.learner import build_hnet
from hnetlib.runs import DamagedError, RunError, read_tensors, write_tensors


def load(profile: str = "laptop") -> Hypernetwork:
    """The hypernetwork of a profile's reference run on MNIST, trained on all its tasks.

    Its tokens are frozen, `hnet.config` holds the settings it was trained with: task t is that of
    `PermutedTasks(data, hnet.config.num_tasks, hnet.config.permutation_seed)`. Kept in half
    precision, returned in float32. FileNotFoundError where the checkout holds none, RunError where
    it is damaged.
    """
    path = _place(profile)
    if not path.is_file():
        raise FileNotFoundError(
            f"profile: expected one with a trained hypernetwork in this checkout "
            f"({', '.join(held()) or 'none has one'}), got {profile!r}"
        )
    try:
        kept = read_tensors(path)
        hnet = build_hnet(Config(**kept["config"]))
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
    hnet.config = Config(**kept["config"])
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
