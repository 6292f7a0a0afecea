"""Training on one task: any function from images to logits, in the same way."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from hnetlib.data import ImageData
from hnetlib.evaluation import accuracy
from hnetlib.tasks import seeded_generator, shuffled_batches


def fit(
    classify: Callable[[Tensor], Tensor],
    parameters: Iterable[nn.Parameter],
    data: ImageData,
    *,
    steps: int,
    batch_size: int,
    lr: float,
    seed: int = 0,
    points: int = 15,
) -> dict[int, float]:
    """Trains `parameters` by Adam, its rate falling to 0 along half a cosine.

    Returns the accuracy on `data`'s evaluation images, {step: accuracy}, at `points` equal
    distances and always after the last step. The seed decides the batches.
    """
    optimizer = torch.optim.Adam(parameters, lr=lr, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    images, labels = data.train_images, data.train_labels
    batches = shuffled_batches(len(labels), batch_size, steps, seeded_generator(seed))
    measured = {}
    for step, indices in enumerate(batches, start=1):
        loss = cross_entropy(classify(images[indices]), labels[indices])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % max(1, steps // points) == 0 or step == steps:
            measured[step] = accuracy(classify, data.eval_images, data.eval_labels)
    return measured
