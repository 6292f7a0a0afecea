"""hnetlib, settings of profile laptop-plain: the method of the paper, Adam for every layer."""

import torch
from torch.nn.functional import cross_entropy

from hnetlib import TaskRegularizer, hypernetize
from hnetlib.targets import MLP


def learn(tasks, lr=1e-3, beta=0.1, num_chunks=10, penalty_size=60):
    hnet = hypernetize(MLP((tasks.num_pixels, 100, 10)), tasks.num_tasks, num_chunks=num_chunks)
    regularizer = TaskRegularizer(hnet, penalty_size=penalty_size)
    for task in range(tasks.num_tasks):
        regularizer.begin_task()
        optimizer = torch.optim.Adam(hnet.parameters(), lr=lr, fused=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, tasks.steps(task))
        for images, labels in tasks.batches(task):
            weights, penalty = regularizer.weights_and_penalty(task, regularizer.draw())
            loss = cross_entropy(hnet.run_target(weights, images), labels) + beta * penalty
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        hnet.freeze_token(task)
        regularizer.end_task(task)
    return lambda task, images: hnet.run_target(hnet(task), images)
