"""hnetlib, settings of profile laptop: the last layer writes each task with least change."""

import torch
from torch.nn.functional import cross_entropy

from hnetlib import Hypernetwork, LeastChange, TaskRegularizer
from hnetlib.targets import MLP


def learn(tasks, lr=3e-4, head_lr=0.0099, beta=0.1, num_chunks=5, penalty_size=10):
    hnet = Hypernetwork(
        MLP((tasks.num_pixels, 100, 10)),
        tasks.num_tasks,
        num_chunks=num_chunks,
        hnet_activation="sine",
    )
    last_layer = LeastChange(hnet, damping=0.01)
    keep = TaskRegularizer(hnet, penalty_size=penalty_size, least_change=last_layer)
    for task in range(tasks.num_tasks):
        optimizer = torch.optim.Adam(hnet.parameters(), lr=lr, fused=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, tasks.steps(task))
        with keep.learning(task):
            for images, labels in tasks.batches(task):
                weights, penalty = keep.weights_and_penalty()
                loss = cross_entropy(hnet.run_target(weights, images), labels) + beta * penalty
                optimizer.zero_grad()
                loss.backward()
                last_layer.step(head_lr * schedule.get_last_lr()[0] / lr)
                optimizer.step()
                schedule.step()
    return lambda task, images: hnet.run(images, task=task)
