"""The accuracy matrix `R`, the field's metrics of it, and the evaluation that knows the task."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from hnetlib.hypernet import Hypernetwork
from hnetlib.tasks import PermutedTasks

EVAL_BATCH = 2000


@torch.no_grad()
def accuracy(classify: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> float:
    """Fraction of `images` [M, D] that `classify`, from images to logits, labels right."""
    correct = sum(
        (classify(some).argmax(-1) == true).sum()
        for some, true in zip(images.split(EVAL_BATCH), labels.split(EVAL_BATCH), strict=True)
    )
    return float(correct) / len(labels)


@torch.no_grad()
def evaluate_task_aware(hnet: Hypernetwork, tasks: PermutedTasks, num_learned: int) -> np.ndarray:
    """Accuracy on each of the first `num_learned` tasks, each with its own token: [num_learned].

    This is the evaluation that cheats: it knows which task an image comes from (the
    task-incremental scenario of arXiv 1904.07734).
    """
    hnet.eval()
    scores = [
        accuracy(partial(hnet.run_target, hnet(task)), *tasks.eval_set(task))
        for task in range(num_learned)
    ]
    hnet.train()
    return np.array(scores)


def average_accuracy(R: np.ndarray) -> float:
    """ACC: mean accuracy over all tasks after the last one, mean_j R[T, j]."""
    return float(_square(R)[-1].mean())


def learning_accuracy(R: np.ndarray) -> float:
    """Mean accuracy on each task right after it was learned, mean_j R[j, j]."""
    return float(_square(R).diagonal().mean())


def backward_transfer(R: np.ndarray) -> float:
    """BWT: mean over all tasks but the last of R[T, j] - R[j, j] (Lopez-Paz & Ranzato, 1706.08840).

    Negative where tasks are forgotten; 0 by definition with a single task.
    """
    return float((_square(R)[-1, :-1] - R.diagonal()[:-1]).mean()) if len(R) > 1 else 0.0


def forgetting(R: np.ndarray) -> float:
    """Mean over all tasks but the last of max_{l<T} R[l, j] - R[T, j] (Chaudhry, 1801.10112).

    A maximum over noisy evaluations, so never quite 0; 0 by definition with a single task.
    """
    return (
        float((np.nanmax(_square(R)[:-1, :-1], axis=0) - R[-1, :-1]).mean()) if len(R) > 1 else 0.0
    )


def metrics(R: np.ndarray) -> dict[str, float]:
    """All of the above, by the names used in files and logs."""
    return {
        "acc": average_accuracy(R),
        "learning_acc": learning_accuracy(R),
        "bwt": backward_transfer(R),
        "forgetting": forgetting(R),
    }


def _square(R: np.ndarray) -> np.ndarray:
    if R.ndim != 2 or R.shape[0] != R.shape[1] or len(R) == 0:
        raise ValueError(f"R: expected a square matrix, tasks by tasks, got shape {R.shape}")
    return R
