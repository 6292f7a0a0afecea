"""The hypernetwork's way through the tasks: old ones are held by the regulariser."""

import math

import torch
from torch import Tensor

from hnetlib import runs
from hnetlib.config import Config
from hnetlib.continual import LOG_EVERY, ContinualLearner
from hnetlib.data import load_data
from hnetlib.hypernet import Hypernetwork
from hnetlib.least_change import LeastChange
from hnetlib.loop import Loop
from hnetlib.progress import Progress
from hnetlib.regularizer import TaskRegularizer
from hnetlib.step import TrainingStep, prepare_torch
from hnetlib.targets import make_target
from hnetlib.tasks import Draws, PermutedTasks, seeded_generator


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
    from hnetlib.baselines import LEARNERS  # which itself starts from this module

    return Learner if method == "hnet" else LEARNERS[method]


def build_hnet(config: Config) -> Hypernetwork:
    """The untrained hypernetwork of a config; its starting values depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        hnet = Hypernetwork(
            make_target(config.target, config.num_pixels),
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


def load_hnet(run: runs.Run) -> Hypernetwork:
    """The trained hypernetwork of a finished run, with its tokens."""
    hnet = build_hnet(run.config)
    state = run.load_checkpoint(run.config.device)
    if state is None or state["num_learned"] < run.config.num_tasks:
        raise runs.RunError(
            f"{run.directory} has its results but not its trained network any more: remove its "
            "metrics.json, and the run is trained again"
        )
    hnet.load_state_dict(state["network"])
    return hnet


class Learner(ContinualLearner):
    """Trains one hypernetwork on a sequence of tasks."""

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
        if not self.config.beta or self.config.generator_tasks == 1:
            return 0
        if self.config.snapshot == "before_task":
            return sum(p.numel() for p in self.hnet.parameters())
        return self.config.num_tasks * self.hnet.num_weights

    def learn(self, task: int, loop: Loop) -> None:
        """Trains on one task; its token is frozen afterwards."""
        config, steps = self.config, self.config.steps(task)
        order, permutation = self.image_order(task), self.tasks.permutation(task)
        pixels = self._pixels_with_token(task, permutation)
        if pixels is not None:
            permutation = permutation[pixels]
        # a stream of its own: whatever the penalty draws, the task's batches stay the same
        draws = Draws(seeded_generator(config.seed, task, 1))
        with self.regularizer.learning(task):
            train = TrainingStep(config, self.hnet, self.regularizer, task, pixels)

            def step(number: int) -> dict[str, Tensor]:
                batch = self.tasks.batch(permutation, order.next())
                pairs = self.regularizer.draw(draws.generator)
                task_loss, penalty = train(*batch, pairs, self.rate(number / steps))
                return {"train/cross_entropy": task_loss, "train/penalty": penalty}

            keep = {"order": order, "draws": draws, "step": train}
            loop(steps, step, keep, first=self.steps_before(task))
        if task + 1 == config.generator_tasks:
            self.hnet.freeze_generator()

    def _pixels_with_token(self, task: int, permutation: Tensor) -> Tensor | None:
        """The pixels [U] of this task that have a token, which is then so; None: all do."""
        number = self.config.pixels_with_token
        if not number:
            return None
        variation = self.tasks.data.train_images.std(0)[permutation]  # [D], of the task's images
        varied = variation.argsort(descending=True, stable=True)[:number]
        chosen = torch.zeros_like(permutation, dtype=torch.bool).index_fill(0, varied, True)
        if self.hnet.selections.of(task) is None:
            self.hnet.select_chunks(task, chosen)
        return chosen.nonzero()[:, 0]

    @property
    def stored_eval(self) -> int:
        """Parameters, which pixels have a token (a bit each), and the start's mean and spread."""
        hnet = self.hnet
        bits = hnet.num_chunks * len(hnet.selections.among(range(hnet.num_tasks)))
        start = 2 * len(hnet.layout) if hnet.tokens == "chunk" else 0
        return super().stored_eval + math.ceil(bits / 32) + start

    @property
    def evaluated_together(self) -> int:
        """Tasks that can't touch each other one by one: then their bytes don't either."""
        return 1 if self.config.generator_tasks else super().evaluated_together

    def state(self) -> dict:
        """The hypernetwork with its tokens, and the regulariser's snapshots."""
        return super().state() | {"regularizer": self.regularizer.state_dict()}

    def load_state(self, state: dict) -> None:
        """Goes on from what `state` returned."""
        super().load_state(state)
        self.regularizer.load_state_dict(state["regularizer"])
