"""Small hypernetworks that several test files use, and what they do with them."""

import torch
from torch.nn.functional import cross_entropy

from hnetlib.chunks import Along
from hnetlib.hypernet import Hypernetwork
from hnetlib.regularizer import TaskRegularizer
from hnetlib.targets import MLP

# for any module
SETTINGS = {"num_chunks": 2, "task_token_dim": 6, "chunk_token_dim": 4, "hnet_hidden": (64,)}
# whose tokens carry the task
SINES = {"hnet_activation": "sine", "frequency": 2.0, "hnet_hidden": (16,), "task_token_dim": 4}
BY_INPUT = {"generate": "layers.0.weight", "cut": Along({"layers.0.weight": 1}), "tokens": "chunk"}
# with a penalty
OLD_TASKS, CHUNKS = 3, 4


def small(num_tasks=2, **settings):
    settings = {"num_chunks": 3, "task_token_dim": 6, "hnet_hidden": (9,)} | settings
    return Hypernetwork(MLP((5, 4, 3)), num_tasks, **settings)


def by_input(num_tasks=2, **settings):
    return Hypernetwork(MLP((12, 8, 3)), num_tasks, **SINES | BY_INPUT | settings)


def learn(hnet, keep, task, steps=3, lr=0.1):
    optimizer = torch.optim.Adam(hnet.parameters_of(task), lr=lr)
    x, y = torch.randn(32, 12), torch.randint(3, (32,))
    with keep.learning(task):
        for _ in range(steps):
            loss = cross_entropy(hnet.run(x, task=task), y) + keep.penalty()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


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


def state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def moved(before, module):
    """Names of what differs from a state before."""
    return {name for name, value in module.state_dict().items() if not value.equal(before[name])}
