"""The hypernetwork's way through the tasks: old ones are held by the regulariser."""

from torch import Tensor

from hnetlib.experiment import runs
from hnetlib.experiment.baselines import LEARNERS
from hnetlib.experiment.config import Config
from hnetlib.experiment.continual import LOG_EVERY, ContinualLearner, Progress
from hnetlib.experiment.data import load_data
from hnetlib.experiment.hnets import build_hnet
from hnetlib.experiment.loop import Loop
from hnetlib.experiment.step import TrainingStep, prepare_torch
from hnetlib.experiment.tasks import Draws, PermutedTasks, seeded_generator
from hnetlib.hypernet import Hypernetwork
from hnetlib.least_change import LeastChange
from hnetlib.regularizer import TaskRegularizer


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
    """The class that learns by this method."""
    return Learner if method == "hnet" else LEARNERS[method]


class Learner(ContinualLearner):
    """Trains one hypernetwork on a sequence of tasks."""

    grows = True

    def __init__(self, config: Config, tasks: PermutedTasks, log_every: int = LOG_EVERY) -> None:
        super().__init__(config, tasks, log_every)
        self.hnet = self.network
        self.regularizer = TaskRegularizer(
            self.hnet,
            snapshot=config.snapshot,
            penalty=config.penalty,
            penalty_size=config.penalty_size,
            least_change=self._least_change(),
        )

    def build(self) -> Hypernetwork:
        """The untrained hypernetwork."""
        return build_hnet(self.config)

    def _least_change(self) -> LeastChange | None:
        if self.config.head_optimizer != "least_change":
            return None
        protect = self.config.beta > 0
        return LeastChange(self.hnet, damping=self.config.damping, protect=protect)

    @property
    def stored_train(self) -> int:
        """The penalty needs a copy of the hypernetwork, or a whole network for each task."""
        if not self.config.beta:
            return 0
        if self.config.snapshot == "before_task":
            return sum(p.numel() for p in self.hnet.parameters())
        return self.config.num_tasks * self.hnet.num_weights

    def learn(self, task: int, loop: Loop) -> None:
        """Trains on one task; its token is frozen afterwards."""
        config, steps = self.config, self.config.steps(task)
        order, permutation = self.image_order(task), self.tasks.permutation(task)
        # a stream of its own: whatever the penalty draws, the task's batches stay the same
        draws = Draws(seeded_generator(config.seed, task, 1))
        with self.regularizer.learning(task):
            train = TrainingStep(config, self.hnet, self.regularizer, task)

            def step(number: int) -> dict[str, Tensor]:
                batch = self.tasks.batch(permutation, order.next())
                pairs = self.regularizer.draw(draws.generator)
                task_loss, penalty = train(*batch, pairs, self.rate(number / steps))
                return {"train/cross_entropy": task_loss, "train/penalty": penalty}

            keep = {"order": order, "draws": draws, "step": train}
            loop(steps, step, keep, first=self.steps_before(task))

    def state(self) -> dict:
        """The hypernetwork with its tokens, and the regulariser's snapshots."""
        return super().state() | {"regularizer": self.regularizer.state_dict()}

    def load_state(self, state: dict) -> None:
        """Goes on from what `state` returned."""
        super().load_state(state)
        self.regularizer.load_state_dict(state["regularizer"])
