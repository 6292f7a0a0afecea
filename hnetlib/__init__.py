"""Continual learning with hypernetworks: the small library behind the report."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hnetlib.experiment.config import Config, make_config
    from hnetlib.experiment.hnets import load
    from hnetlib.hypernet import Hypernetwork
    from hnetlib.least_change import LeastChange
    from hnetlib.regularizer import TaskRegularizer

__all__ = [
    "Config",
    "Hypernetwork",
    "LeastChange",
    "TaskRegularizer",
    "load",
    "make_config",
]
_HOMES = {
    "Config": "experiment.config",
    "Hypernetwork": "hypernet",
    "LeastChange": "least_change",
    "TaskRegularizer": "regularizer",
    "load": "experiment.hnets",
    "make_config": "experiment.config",
}


def __getattr__(name: str) -> object:
    """Public names load their module when asked for: scripts that need no PyTorch start at once."""
    if name not in _HOMES:
        raise AttributeError(f"module 'hnetlib' has no attribute {name!r}")
    return getattr(import_module(f"hnetlib.{_HOMES[name]}"), name)
