"""hnetlib, settings of profile laptop-plain: the method of the paper, Adam for every layer."""

import torch
from torch.nn.functional import cross_entropy

from hnetlib import Hypernetwork, TaskRegularizer
from hnetlib.targets import MLP


def learn(tasks, lr=1e-3, beta=0.1, num_chunks=10, penalty_size=60):
    hnet = Hypernetwork(MLP((tasks.num_pixels, 100, 10)), tasks.num_tasks, num_chunks=num_chunks)
    keep = TaskRegularizer(hnet, penalty_size=penalty_size)
    for task in range(tasks.num_tasks):
        optimizer = torch.optim.Adam(hnet.parameters(), lr=lr, fused=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, tasks.steps(task))
        with keep.learning(task):
            for images, labels in tasks.batches(task):
                weights, penalty = keep.weights_and_penalty()
                loss = cross_entropy(hnet.run_target(weights, images), labels) + beta * penalty
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    return lambda task, images: hnet.run(images, task=task)
