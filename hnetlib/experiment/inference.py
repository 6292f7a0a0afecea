"""Not told the task: rules that tell from one image which task it is of, in three classes.

(a) confidence: what the networks of all tasks make of the image;
(b) weights: what generated weights say of the inputs that they have seen;
(c) input statistics: mean training images, stored for this alone.

A rule scores an image for every task; the highest score wins, and that task's network classifies.
Of the three scenarios of van de Ven & Tolias (arXiv 1904.07734) the share of right classes is the
domain-incremental one, of right tasks and classes the class-incremental one.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import vmap

from hnetlib.checks import expect_a, expect_at_least
from hnetlib.experiment.evaluation import Network, are_right, in_eval_mode
from hnetlib.experiment.streams import ImageTasks
from hnetlib.experiment.tasks import PermutedTasks

BATCH = 128  # images that one of them decides for, in Wortsman et al. (2006.14769)
TASKS_AT_ONCE = 50  # whose networks are generated together
TINY = 1e-12  # below any energy of a column that was ever trained


@dataclass(frozen=True)
class Said:
    """What there is to rank T tasks by, for images [B, D] of one task."""

    images: Tensor  # [B, D]
    logits: Tensor  # [T, B, classes]: of each task's network, -inf for classes it lacks
    none: Tensor | None  # [T, B]: their logit that an image is of no class, where they have one
    energy: Tensor | None  # [T, D]: of each task's weights, see `column_energy`; None: unknown
    means: Tensor  # [T, D]: mean training image of each task


Rule = Callable[[Said], Tensor]  # scores [T, B]
Tasks = PermutedTasks | ImageTasks


def max_probability(said: Said) -> Tensor:
    """The probability of the likeliest class (Hendrycks & Gimpel, 1610.02136)."""
    return said.logits.softmax(-1).amax(-1)


def low_entropy(said: Said) -> Tensor:
    """The negative entropy of the classes' probabilities (as in von Oswald et al., 1906.00695)."""
    return -torch.special.entr(said.logits.softmax(-1)).sum(-1)


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
    if said.energy is None:
        raise ValueError("light on energy: expected a module that says its `pixel_weight`")
    return _light_on(said.images, said.energy)


def _light_on(images: Tensor, energy: Tensor) -> Tensor:
    """Correlations [T, B] of images [B, D] with the log of energies [T, D]."""
    light, energy = _standard(images), _standard(energy.clamp_min(TINY).log())
    return energy @ light.T


def _standard(values: Tensor) -> Tensor:
    """Rows [..., D] with mean 0 and length 1."""
    centred = values - values.mean(-1, keepdim=True)
    return centred / centred.norm(dim=-1, keepdim=True).clamp_min(TINY)


def nearest_mean(said: Said) -> Tensor:
    """The negative squared distance to a task's mean training image."""
    return -torch.cdist(said.means, said.images).square()


BY_WEIGHTS = "light on energy"  # the rule that results not told the task are quoted by
NOT_NONE = {"not none": not_none}  # confidence, too
RULES: dict[str, dict[str, Rule]] = {
    "confidence": {
        "max probability": max_probability,
        "entropy": low_entropy,
        "max logit": max_logit,
        "log-sum-exp": log_sum_exp,
    },
    "weights": {BY_WEIGHTS: light_on_energy},
    "input statistics": {"nearest mean": nearest_mean},
}


@torch.no_grad()
def networks_of_all(network: Network, num_tasks: int) -> Iterator[dict[str, Tensor]]:
    """Every task's network by name, some tasks [G] at once: each [G, *shape]."""
    for some in torch.arange(num_tasks).split(TASKS_AT_ONCE):
        yield network.weights_of(some)


@torch.no_grad()
def logits_of_all(
    network: Network, images: Tensor, num_tasks: int, networks: Iterable | None = None
) -> Tensor:
    """What every task's network makes of the same images [B, D]: [T, B, classes].

    `networks`: of `networks_of_all`, which takes longer than to ask them; None: generated here.
    """
    run_all = vmap(network.run_target, in_dims=(0, None))
    networks = networks_of_all(network, num_tasks) if networks is None else networks
    with in_eval_mode(network):
        return torch.cat([run_all(weights, images) for weights in networks])


@torch.no_grad()
def column_energy(network: Network, num_tasks: int, networks: Iterable | None = None) -> Tensor:
    """Variance over hidden units of the first layer's weights of each pixel: [T, D].

    `networks`: as for `logits_of_all`.
    """
    name = network.target.pixel_weight
    networks = networks_of_all(network, num_tasks) if networks is None else networks
    return torch.cat([weights[name].var(1) for weights in networks])  # of [G, out, D]


def mean_images(tasks: Tasks) -> Tensor:
    """The mean training image of each task, [T, D]."""
    if isinstance(tasks, PermutedTasks):
        mean = tasks.data.train_images.mean(0)  # [D]
        return torch.stack([mean[tasks.permutation(task)] for task in range(tasks.num_tasks)])
    images, labels = tasks.data.train_images, tasks.data.train_labels
    own = [tasks.images_of(task, labels) for task in range(tasks.num_tasks)]  # each [K]
    shown = (tasks.show(t, images[mine], labels[mine])[0] for t, mine in enumerate(own))
    return torch.stack([some.mean(0) for some in shown])


@dataclass(frozen=True)
class Found:
    """What came of one rule, per image of all tasks: means over tasks."""

    task: float  # share of images whose task was found
    label: float  # share of images whose class was found, by the network of the task found
    both: float  # share of images of which both were
    told: float  # share of images whose class is found where the task is told
    batch: float  # an image decides for its batch, the mean over which; a wrong task scores it 0


def evaluate(
    network: Network, tasks: Tasks, rules: dict[str, Rule], num_images: int, batch: int
) -> dict[str, Found]:
    """Every rule on `num_images` evaluation images of every task, at equal distances.

    `batch`: images of a task that one of them decides for, 128 in Wortsman et al. (2006.14769).
    """
    rows: dict[str, list[list[float]]] = {name: [] for name in rules}
    for task, (said, labels) in enumerate(_said_of_each(network, tasks, num_images)):
        right = are_right(said.logits, labels)  # [T, B]
        for name, rule in rules.items():
            rows[name].append(_row(rule(said), right, task, batch))
    return {name: Found(*torch.tensor(row).mean(0).tolist()) for name, row in rows.items()}


@torch.no_grad()
def evaluate_by_weights(network: Network, tasks: Tasks, num_images: int, batch: int) -> Found:
    """`evaluate` for the rule by weights alone, which asks the networks of found tasks only.

    All networks on all images cost as many runs as the square of the number of tasks.
    """
    energy, rows = column_energy(network, tasks.num_tasks), []
    for task in range(tasks.num_tasks):
        images, labels = _images_of(tasks, task, num_images)
        scores = _light_on(images, energy)  # [T, B]
        asked = torch.cat([scores.argmax(0), torch.tensor([task])]).unique()  # [A]
        logits = logits_of_all(network, images, len(asked), [network.weights_of(asked)])
        right = torch.zeros(scores.shape, dtype=torch.bool)
        right[asked] = are_right(among_classes(logits, tasks, asked), labels)
        rows.append(_row(scores, right, task, batch))
    return Found(*torch.tensor(rows).mean(0).tolist())


def score_all(
    network: Network, tasks: Tasks, rules: dict[str, Rule], num_images: int
) -> dict[str, Tensor]:
    """Scores [T, T, B] of each rule: `num_images` images of each task, for every task."""
    each = [said for said, _ in _said_of_each(network, tasks, num_images)]
    return {name: torch.stack([rule(said) for said in each]) for name, rule in rules.items()}


@torch.no_grad()
def _said_of_each(network: Network, tasks: Tasks, num_images: int) -> Iterator[tuple[Said, Tensor]]:
    """For each task: what there is to say of images of it, and their labels [B]."""
    expect_a(PermutedTasks | ImageTasks, tasks=tasks)
    expect_at_least(1, num_images=num_images)
    networks = list(networks_of_all(network, tasks.num_tasks))  # asked again for each task
    known = hasattr(network.target, "pixel_weight")
    energy = column_energy(network, tasks.num_tasks, networks) if known else None
    means = mean_images(tasks)
    classes = tasks.data.num_classes
    for task in range(tasks.num_tasks):
        images, labels = _images_of(tasks, task, num_images)
        logits = logits_of_all(network, images, tasks.num_tasks, networks)
        none = logits[..., classes] if logits.shape[-1] > classes else None
        yield Said(images, among_classes(logits, tasks), none, energy, means), labels


def among_classes(logits: Tensor, tasks: Tasks, asked: Iterable[int] | None = None) -> Tensor:
    """Logits [T, B, classes] of each of those tasks (None: all): -inf for classes it lacks."""
    asked = range(tasks.num_tasks) if asked is None else asked
    own = torch.tensor([tasks.num_classes(int(task)) for task in asked], device=logits.device)
    logits = logits[..., : tasks.data.num_classes]
    if logits.shape[-1] < own.max():
        expected = f"a module with logits of {own.max()} classes"
        raise ValueError(f"network: expected {expected}, got {logits.shape[-1]}")
    lacks = torch.arange(logits.shape[-1], device=logits.device) >= own[:, None]  # [T, classes]
    return logits.masked_fill(lacks[:, None], -torch.inf)


def _images_of(tasks: Tasks, task: int, num_images: int) -> tuple[Tensor, Tensor]:
    """So many evaluation images [B, D] of a task, at equal distances, and their labels [B]."""
    images, labels = tasks.eval_set(task)
    chosen = torch.linspace(0, len(labels) - 1, num_images).long()
    return images[chosen], labels[chosen]


def _row(scores: Tensor, right: Tensor, task: int, batch: int) -> list[float]:
    """The numbers of `Found` for one task: scores [T, B], and which networks are right [T, B]."""
    found = scores.masked_fill(scores.isnan(), -torch.inf).argmax(0)  # [B]
    label, hit, told = right.gather(0, found[None])[0], found == task, right[task]
    parts = zip(hit.float().split(batch), told.float().split(batch), strict=True)
    decided = torch.cat([who.mean() * right_there for who, right_there in parts])
    return [float(x.float().mean()) for x in (hit, label, hit & told, told, decided)]


def tasks_by_number_of_images(scores: Tensor, task: int, counts: Sequence[int]) -> list[float]:
    """How often the task is found where `counts` images may be looked at: scores [T, B] add up."""
    return [
        float((part.sum(-1).argmax(0) == task).float().mean())
        for count in counts
        for part in [scores[:, : scores.shape[1] // count * count].unflatten(1, (-1, count))]
    ]
