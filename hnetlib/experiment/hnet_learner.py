"""The hypernetwork's way through the tasks: old ones are held by the regulariser."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Generator, Tensor

from hnetlib.experiment.config import Config
from hnetlib.experiment.continual import LOG_EVERY, ContinualLearner
from hnetlib.experiment.hnets import build_hnet
from hnetlib.experiment.loop import Loop
from hnetlib.experiment.step import TrainingStep
from hnetlib.experiment.tasks import Draws, PermutedTasks, seeded_generator
from hnetlib.hypernet import Hypernetwork
from hnetlib.least_change import LeastChange
from hnetlib.regularizer import TaskRegularizer


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
        if self.config.head_optimizer == "adam":
            return None
        protect = self.config.head_optimizer == "least_change" and self.config.beta > 0
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
        order, batch = self.image_order(task), self._batches(task)
        # a stream of its own: whatever the penalty draws, the task's batches stay the same
        draws = Draws(seeded_generator(config.seed, task, 1))
        with self.regularizer.learning(task):
            narrow = config.pixels_with_token > 0
            train = TrainingStep(config, self.hnet, self.regularizer, task, narrow)

            def step(number: int) -> dict[str, Tensor]:
                pairs = self.regularizer.draw(draws.generator)
                inputs = self._with_noise(batch, order.next(), draws.generator)
                task_loss, penalty = train(*inputs, pairs, self.rate(number / steps))
                return {"train/cross_entropy": task_loss, "train/penalty": penalty}

            keep = {"order": order, "draws": draws, "step": train}
            loop(steps, step, keep, first=self.steps_before(task))
        if task + 1 == config.generator_tasks:
            self.hnet.freeze_generator()

    def _batches(self, task: int) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """From indices [B] to a task's images, [B, D] or with its tokens' pixels alone, and labels.

        The pixels that have a token are those that vary most in the task's training images.
        """
        permutation, data = self.tasks.permutation(task), self.tasks.data
        number = self.config.pixels_with_token
        if not number:
            return partial(self.tasks.batch, permutation)
        varied = self.tasks.variation[permutation].argsort(descending=True, stable=True)  # [D]
        chosen = torch.zeros_like(permutation, dtype=torch.bool).index_fill(
            0, varied[:number], True
        )
        if self.hnet.selections.of(task) is None:
            self.hnet.select_chunks(task, chosen)
        images = data.train_images.index_select(1, permutation[chosen])  # [N, U]
        return lambda indices: (images.index_select(0, indices), data.train_labels[indices])

    def _with_noise(
        self, batch: Callable[[Tensor], tuple[Tensor, Tensor]], indices: Tensor, draws: Generator
    ) -> tuple[Tensor, Tensor]:
        """The batch of indices [B], in which a share of the images is shuffled, of no class.

        They are in two random orders, as another task would show them, which needs no image of
        another task.
        """
        data, number = self.tasks.data, round(self.config.noise_share * len(indices))
        if not number:
            return batch(indices)
        images, labels = batch(indices[number:])
        parts = [images]
        for some in indices[:number].chunk(2):
            order = torch.randperm(data.num_pixels, generator=draws)[: images.shape[1]]
            parts.append(self.tasks.batch(order.to(images.device), some)[0])
        nothing = labels.new_full((number,), data.num_classes)
        return torch.cat(parts), torch.cat([labels, nothing])  # [B, D or U], [B]

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
