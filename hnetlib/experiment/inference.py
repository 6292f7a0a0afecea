"""Not told the task: rules that tell from one image which task it is of, in three classes.

(a) confidence: what the networks of all tasks make of the image;
(b) weights: what generated weights say of the inputs that they have seen;
(c) input statistics: mean training images, stored for this alone.

A rule scores an image for every task; the highest score wins, and that task's network classifies.
With all classes and tasks told apart by the model itself, labels being shared by tasks, this is the
domain-incremental scenario of van de Ven & Tolias (arXiv 1904.07734) where only the class counts,
and task inference where the task counts too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import vmap

from hnetlib.experiment.evaluation import Network
from hnetlib.experiment.tasks import PermutedTasks

TASKS_AT_ONCE = 50  # whose networks are generated together
TINY = 1e-12  # below any energy of a column that was ever trained


@dataclass(frozen=True)
class Said:
    """What there is to rank T tasks by, for images [B, D] of one task."""

    images: Tensor  # [B, D]
    logits: Tensor  # [T, B, classes]: of each task's network
    none: Tensor | None  # [T, B]: their logit that an image is of no class, where they have one
    energy: Tensor  # [T, D]: of each task's weights, see `column_energy`
    means: Tensor  # [T, D]: mean training image of each task


Rule = Callable[[Said], Tensor]  # scores [T, B]


def max_probability(said: Said) -> Tensor:
    """The probability of the likeliest class (Hendrycks & Gimpel, 1610.02136)."""
    return said.logits.softmax(-1).amax(-1)


def low_entropy(said: Said) -> Tensor:
    """The negative entropy of the classes' probabilities (as in von Oswald et al., 1906.00695)."""
    log_p = said.logits.log_softmax(-1)
    return (log_p.exp() * log_p).sum(-1)


def max_logit(said: Said) -> Tensor:
    """The largest logit."""
    return said.logits.amax(-1)


def log_sum_exp(said: Said) -> Tensor:
    """The log of the sum of exponentials of the logits: the negative free energy (2010.03759)."""
    return said.logits.logsumexp(-1)


def not_none(said: Said) -> Tensor:
    """The log odds that an image is of any class, by networks that learned a class "none"."""
    return log_sum_exp(said) - said.none


def light_on_energy(said: Said) -> Tensor:
    """The correlation over pixels of an image's light with the log energy of their columns.

    Columns of the first layer learn where there is light: a pixel that is dark in all images of a
    task gets no gradient. So weights say where a task's images carry light.
    """
    light, energy = (_standard(x) for x in (said.images, said.energy.clamp_min(TINY).log()))
    return energy @ light.T  # [T, B]


def _standard(values: Tensor) -> Tensor:
    """Rows [..., D] with mean 0 and length 1."""
    centred = values - values.mean(-1, keepdim=True)
    return centred / centred.norm(dim=-1, keepdim=True).clamp_min(TINY)


def nearest_mean(said: Said) -> Tensor:
    """The negative squared distance to a task's mean training image."""
    return -torch.cdist(said.means, said.images).square()


NOT_NONE = {"not none": not_none}  # confidence, too
RULES: dict[str, dict[str, Rule]] = {
    "confidence": {
        "max probability": max_probability,
        "entropy": low_entropy,
        "max logit": max_logit,
        "log-sum-exp": log_sum_exp,
    },
    "weights": {"light on energy": light_on_energy},
    "input statistics": {"nearest mean": nearest_mean},
}


@torch.no_grad()
def logits_of_all(network: Network, images: Tensor, num_tasks: int) -> Tensor:
    """What every task's network makes of the same images [B, D]: [T, B, classes]."""
    network.eval()
    return torch.cat(
        [
            vmap(network.run_target, in_dims=(0, None))(network.weights_of(group), images)
            for group in torch.arange(num_tasks).split(TASKS_AT_ONCE)
        ]
    )


@torch.no_grad()
def column_energy(network: Network, num_tasks: int) -> Tensor:
    """Variance over hidden units of the first layer's weights of each pixel: [T, D]."""
    name = network.target.pixel_weight
    return torch.cat(
        [
            network.weights_of(group)[name].var(1)  # [G, out, D] to [G, D]
            for group in torch.arange(num_tasks).split(TASKS_AT_ONCE)
        ]
    )


def mean_images(tasks: PermutedTasks) -> Tensor:
    """The mean training image of each task, [T, D]."""
    return tasks.data.train_images.mean(0)[tasks.permutations]


@dataclass(frozen=True)
class Found:
    """What came of one rule, per image of all tasks: means over tasks."""

    task: float  # share of images whose task was found
    label: float  # share of images whose class was found, by the network of the task found
    told: float  # the same where the task is told
    batch: float  # the first image of a batch decides; a wrong task scores the batch 0


@torch.no_grad()
def evaluate(
    network: Network, tasks: PermutedTasks, rules: dict[str, Rule], num_images: int, batch: int
) -> dict[str, Found]:
    """Every rule on `num_images` evaluation images of every task, at equal distances.

    `batch`: images of a task that one of them decides for, 128 in Wortsman et al. (2006.14769).
    """
    chosen = torch.linspace(0, len(tasks.data.eval_labels) - 1, num_images).long()
    energy, means = column_energy(network, tasks.num_tasks), mean_images(tasks)
    rows: dict[str, list[list[float]]] = {name: [] for name in rules}
    for task in range(tasks.num_tasks):
        images, labels = (part[chosen] for part in tasks.eval_set(task))
        logits = logits_of_all(network, images, tasks.num_tasks)
        classes = tasks.data.num_classes
        none = logits[..., classes] if logits.shape[-1] > classes else None
        logits = logits[..., :classes]
        said = Said(images, logits, none, energy, means)
        for name, rule in rules.items():
            rows[name].append(_row(rule(said), logits, labels, task, batch))
    return {name: Found(*torch.tensor(row).mean(0).tolist()) for name, row in rows.items()}


def _row(scores: Tensor, logits: Tensor, labels: Tensor, task: int, batch: int) -> list[float]:
    found = scores.argmax(0)  # [B]
    right = logits.argmax(-1) == labels  # [T, B]
    label = right.gather(0, found[None])[0]
    told = right[task].float()
    decided = torch.cat(
        [(found[i] == task) * told[i : i + batch] for i in range(0, len(labels), batch)]
    )
    return [float(x.float().mean()) for x in (found == task, label, told, decided)]


def tasks_by_number_of_images(scores: Tensor, task: int, counts: Sequence[int]) -> list[float]:
    """How often the task is found where `counts` images may be looked at: scores [T, B] add up."""
    return [
        float((part.sum(-1).argmax(0) == task).float().mean())
        for count in counts
        for part in [scores[:, : scores.shape[1] // count * count].unflatten(1, (-1, count))]
    ]
