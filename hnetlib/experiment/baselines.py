"""What the hypernetwork is compared with, on the same tasks, batches and evaluation.

| method | network | sees |
|---|---|---|
| fine-tuning | plain, one head | one task after the other, nothing holds the old ones |
| ewc, si | plain, one head | the same, weights held by their importance |
| ewc-multihead, si-multihead | plain, one head per task | the same |
| joint-plain, joint-multihead | plain | all tasks at once |
| joint-hnet | the hypernetwork | all tasks at once |
| separate | one plain network per task | each its own task |
"""

import numpy as np
import torch
from torch import Tensor, nn

from hnetlib.experiment.config import Config
from hnetlib.experiment.continual import LOG_EVERY, ContinualLearner
from hnetlib.experiment.hnets import build_hnet
from hnetlib.experiment.importance import IMPORTANCE, NUM_IMAGES, Importance
from hnetlib.experiment.loop import Loop, Stateful
from hnetlib.experiment.plain import PlainNetwork, build_plain, run_tasks
from hnetlib.experiment.step import parameter_groups
from hnetlib.experiment.tasks import PermutedTasks, ShuffledOrder


class SequentialLearner(ContinualLearner):
    """One plain network, one task after the other; importance, if any, holds old weights.

    With a head per task the heads are one tensor, so that it can't take in a run of fewer.
    """

    importance_class: type[Importance] | None = None  # by default what the method is called

    def __init__(self, config: Config, tasks: PermutedTasks, log_every: int = LOG_EVERY) -> None:
        super().__init__(config, tasks, log_every)
        kind = self.importance_class or IMPORTANCE[config.method.removesuffix("-multihead")]
        self.importance = kind(self.network, config.strength)
        self.grows = not config.method.endswith("-multihead")

    def build(self) -> PlainNetwork:
        """The untrained network."""
        multihead = self.config.method.endswith("-multihead")
        return build_plain(self.config, own="head" if multihead else "nothing")

    @property
    def stored_train(self) -> int:
        """Importance, anchor, and what importance is made of."""
        numbers = sum(p.numel() for p in self.network.parameters())
        return self.importance.stored_per_weight * numbers

    def learn(self, task: int, loop: Loop) -> None:
        """Trains on one task."""
        config, steps, importance = self.config, self.config.steps(task), self.importance
        order, permutation = self.image_order(task), self.tasks.permutation(task)
        optimizer = torch.optim.Adam(self.network.parameters(), lr=config.lr, fused=True)
        importance.begin_task()

        def step(number: int) -> dict[str, Tensor]:
            optimizer.param_groups[0]["lr"] = config.lr * self.rate(number / steps)
            images, labels = self.tasks.batch(permutation, order.next())
            logits = self.network.run_target(self.network(task), images)
            loss = self.cross_entropy(logits, labels)
            optimizer.zero_grad()
            loss.backward()
            importance.before_step()
            logged = number % loop.log_every == 0  # a whole pass over the weights
            penalty = {"train/penalty": importance.penalty()} if logged else {}
            optimizer.step()
            importance.after_step()
            return {"train/cross_entropy": loss.detach(), **penalty}

        keep = {"network": self.network, "optimizer": optimizer}
        keep |= {"order": order, "importance": importance}
        loop(steps, step, keep, first=self.steps_before(task))
        importance.end_task(task, self._some_images(task, order.generator), order.generator)

    def _some_images(self, task: int, generator: torch.Generator) -> Tensor:
        """Training images [M, D] of a task, in a random order."""
        everything = self.tasks.data.train_images
        order = torch.randperm(len(everything), generator=generator)[:NUM_IMAGES].to(
            everything.device
        )
        return everything[order][:, self.tasks.permutation(task)]

    def state(self) -> dict:
        """The network, and what is remembered of old tasks."""
        return super().state() | {"importance": self.importance.tensors}

    def load_state(self, state: dict) -> None:
        """Goes on from what `state` returned."""
        super().load_state(state)
        self.importance.tensors = state["importance"]


class AtOnceLearner(ContinualLearner):
    """Any network, trained on all tasks at once: one optimiser, one schedule over all steps."""

    def __init__(self, config: Config, tasks: PermutedTasks, log_every: int = LOG_EVERY) -> None:
        super().__init__(config, tasks, log_every)
        self.optimizer = self.build_optimizer()
        self.rates = [group["lr"] for group in self.optimizer.param_groups]

    def build_optimizer(self) -> torch.optim.Optimizer:
        """Adam over everything."""
        return torch.optim.Adam(self.network.parameters(), lr=self.config.lr, fused=True)

    def evaluated(self, task: int) -> range:
        """All tasks, once, after the last part: there is no order in which they are learned."""
        return range(self.config.num_tasks if task == self.config.num_tasks - 1 else 0)

    def metrics(self, R: np.ndarray) -> dict[str, float | None]:
        """ACC alone: no task is learned before another, so none is forgotten."""
        return {"acc": float(R[-1].mean()), "learning_acc": None, "bwt": None, "forgetting": None}

    def state(self) -> dict:
        """The network and its optimiser."""
        return super().state() | {"optimizer": self.optimizer.state_dict()}

    def load_state(self, state: dict) -> None:
        """Goes on from what `state` returned."""
        super().load_state(state)
        self.optimizer.load_state_dict(state["optimizer"])

    def _kept(self, order: ShuffledOrder) -> dict[str, Stateful]:
        return {"network": self.network, "optimizer": self.optimizer, "order": order}

    def _step(self, done: float, loss: Tensor) -> None:
        for group, full in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = full * self.rate(done)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


class JointLearner(AtOnceLearner):
    """Batches of a few drawn tasks, as many images in all as the sequential methods see."""

    def build(self) -> nn.Module:
        """The untrained network."""
        if self.config.method == "joint-hnet":
            return build_hnet(self.config)
        multihead = self.config.method == "joint-multihead"
        return build_plain(self.config, own="head" if multihead else "nothing")

    def build_optimizer(self) -> torch.optim.Optimizer:
        """Adam over everything; a hypernetwork's last layer has its own rate."""
        if self.config.method != "joint-hnet":
            return super().build_optimizer()
        everything = range(self.config.num_tasks)
        return torch.optim.Adam(parameter_groups(self.network, everything, self.config), fused=True)

    def learn(self, task: int, loop: Loop) -> None:
        """One part of the steps, on all tasks."""
        config, data = self.config, self.tasks.data
        num_drawn = min(config.tasks_per_batch, config.num_tasks)
        first, total = self.steps_before(task), self.steps_before(config.num_tasks)
        permutations = self.tasks.permutations  # [T, D]
        order = self.image_order(task, config.batch_size // num_drawn * num_drawn)

        def step(number: int) -> dict[str, Tensor]:
            indices = order.next().to(permutations.device)  # [B]
            drawn = torch.randperm(config.num_tasks, generator=order.generator)[:num_drawn]  # [G]
            drawn = drawn.to(permutations.device)
            images = data.train_images[indices].unflatten(0, (num_drawn, -1))  # [G, B / G, D]
            images = images.gather(2, permutations[drawn][:, None].expand_as(images))
            logits = run_tasks(self.network, drawn, images)  # [G, B / G, classes]
            loss = self.cross_entropy(logits.flatten(0, 1), data.train_labels[indices])
            self._step((first + number) / total, loss)
            return {"train/cross_entropy": loss.detach()}

        loop(config.steps(task), step, self._kept(order), first)


class SeparateLearner(AtOnceLearner):
    """One plain network per task, all trained at once, each for `steps_per_task` steps.

    An order of the pixels is an order of the first layer's columns. So here each network keeps its
    columns in the order of the unpermuted images, all read the same batch of those, and the columns
    are put in the task's order at the end: the same as if each network had learned its own task.
    """

    def build(self) -> PlainNetwork:
        """The untrained networks."""
        return build_plain(self.config, own="everything")

    def metrics(self, R: np.ndarray) -> dict[str, float | None]:
        """What is learned of a task stays: learning accuracy is ACC, and nothing is forgotten."""
        return super().metrics(R) | {"learning_acc": float(R[-1].mean())} | NOTHING_FORGOTTEN

    def learn(self, task: int, loop: Loop) -> None:
        """One part of the steps, of all networks at once."""
        config, data = self.config, self.tasks.data
        first, last = (
            config.steps_per_task * part // config.num_tasks for part in (task, task + 1)
        )
        order, everything = self.image_order(task), torch.arange(config.num_tasks)

        def step(number: int) -> dict[str, Tensor]:
            indices = order.next().to(data.train_labels.device)
            images = data.train_images[indices]  # [B, D]
            logits = run_tasks(self.network, everything, images)  # [T, B, classes]
            labels = data.train_labels[indices].expand(config.num_tasks, -1)  # [T, B]
            # a sum over tasks: each network's own gradient, as if it were alone
            loss = self.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
            self._step((first + number) / config.steps_per_task, loss.sum() / config.batch_size)
            return {"train/cross_entropy": loss.detach().mean()}

        loop(last - first, step, self._kept(order), first)
        if task == config.num_tasks - 1:
            self._reorder()

    @torch.no_grad()
    def _reorder(self) -> None:
        """Puts each network's columns in the order in which its task shows pixels."""
        orders = self.tasks.permutations  # [T, D]
        columns = self.network.values[self.network.names.index(self.network.target.pixel_weight)]
        columns.copy_(columns.gather(2, orders[:, None].expand_as(columns)))  # [T, out, D]


NOTHING_FORGOTTEN = {"bwt": 0.0, "forgetting": 0.0}
