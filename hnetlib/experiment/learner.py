"""A config's run: read from disk, resumed, or trained by the class that its method names."""

from importlib import import_module

from hnetlib.experiment import runs
from hnetlib.experiment.config import Config
from hnetlib.experiment.continual import ContinualLearner, Progress
from hnetlib.experiment.data import load_data
from hnetlib.experiment.profiles import learner_name
from hnetlib.experiment.step import prepare_torch
from hnetlib.experiment.tasks import PermutedTasks


def train_or_load(config: Config, progress: bool = True) -> runs.Run:
    """The finished run of this config: read from disk, resumed, or trained from the start."""
    prepare_torch(config)
    data = load_data(config.dataset, config.split, config.device)
    run = runs.Run(config, data.checksum)
    if run.finished:
        return run
    run.check_places()
    with run.locked():
        if not run.finished:  # or another process finished it just now
            run.start()
            tasks = PermutedTasks(data, config.num_tasks, config.permutation_seed)
            learner = learner_class(config.method)(config, tasks)
            learner.train(run, Progress(config.num_tasks, run.name, shown=progress))
    return run


def learner_class(method: str) -> type[ContinualLearner]:
    """The class that learns by this method.

    By its name, so that nothing here imports it: what a run is known by (`identity`) is the code
    of its own method.
    """
    module, _, name = learner_name(method).rpartition(".")
    return getattr(import_module(module), name)
