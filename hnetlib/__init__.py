"""Continual learning with hypernetworks: the small library behind the report.

The method is in `hypernet`, `regularizer` and `least_change`, and knows nothing of data; the
benchmark around it is in `experiment`. Two tasks, learned one after the other:

>>> import torch
>>> from torch.nn.functional import cross_entropy
>>> from hnetlib import Hypernetwork, LeastChange, TaskRegularizer
>>> _ = torch.manual_seed(0)
>>> x = torch.randn(200, 4)
>>> labels = [(x[:, 0] > 0).long(), (x[:, 0] < 0).long()]  # no network is right in both
>>> hnet = Hypernetwork(torch.nn.Linear(4, 2))
>>> last_layer = LeastChange(hnet, damping=0.01)  # optional: without, Adam moves it as well
>>> keep = TaskRegularizer(hnet, least_change=last_layer)
>>> for y in labels:
...     task = hnet.add_task()
...     optimizer = torch.optim.Adam(hnet.parameters_of(task), lr=1e-3)
...     with keep.learning(task):
...         for _ in range(100):
...             loss = cross_entropy(hnet.run(x, task=task), y) + 0.1 * keep.penalty()
...             optimizer.zero_grad()
...             loss.backward()
...             optimizer.step()
...             last_layer.step(lr=0.01)
>>> [float((hnet.run(x, task=t).argmax(1) == labels[t]).float().mean()) > 0.9 for t in (0, 1)]
[True, True]
"""

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
