"""hnetlib, settings of profile laptop: the last layer writes each task with least change."""

import torch
from torch.nn.functional import cross_entropy

from hnetlib import LeastChange, TaskRegularizer, hypernetize
from hnetlib.targets import MLP


def learn(tasks, lr=3e-4, head_lr=0.0099, beta=0.1, num_chunks=5, penalty_size=10):
    hnet = hypernetize(
        MLP((tasks.num_pixels, 100, 10)),
        tasks.num_tasks,
        num_chunks=num_chunks,
        hnet_activation="sine",
    )
    regularizer = TaskRegularizer(hnet, penalty_size=penalty_size)
    for task in range(tasks.num_tasks):
        regularizer.begin_task()
        head = LeastChange(hnet, task, regularizer.old_features(), damping=0.01)
        optimizer = torch.optim.Adam(hnet.parameters(), lr=lr, fused=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, tasks.steps(task))
        for images, labels in tasks.batches(task):
            drawn = regularizer.draw()
            weights, penalty = regularizer.weights_and_penalty(task, drawn, head.change)
            loss = cross_entropy(hnet.run_target(weights, images), labels)
            loss = loss + beta * (penalty + head.penalty())
            optimizer.zero_grad()
            loss.backward()
            head.step(head_lr * schedule.get_last_lr()[0] / lr)
            optimizer.step()
            schedule.step()
        head.write()
        hnet.freeze_token(task)
        regularizer.end_task(task)
    return lambda task, images: hnet.run_target(hnet(task), images)
