"""Continual learning with hypernetworks: the small library behind the report."""

from hnetlib.config import Config, make_config
from hnetlib.hypernet import Hypernetwork
from hnetlib.least_change import LeastChange
from hnetlib.pretrained import load
from hnetlib.regularizer import TaskRegularizer

__all__ = [
    "Config",
    "Hypernetwork",
    "LeastChange",
    "TaskRegularizer",
    "load",
    "make_config",
]
