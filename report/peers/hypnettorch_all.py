"""hypnettorch: the method of the paper by its authors' library, the penalty over all old tasks."""

import torch
from hypnettorch.hnets.chunked_mlp_hnet import ChunkedHMLP
from hypnettorch.mnets.mlp import MLP
from hypnettorch.utils.hnet_regularizer import calc_fix_target_reg, get_current_targets
from torch.nn.functional import cross_entropy


def learn(tasks, lr=1e-3, beta=0.01, num_chunks=10):
    target = MLP(n_in=tasks.num_pixels, n_out=10, hidden_layers=(100,), no_weights=True)
    hnet = ChunkedHMLP(
        target.param_shapes,
        -(-target.num_params // num_chunks),
        chunk_emb_size=32,
        cond_in_size=64,
        layers=(200, 250, 350),
        num_cond_embs=tasks.num_tasks,
    )
    for task in range(tasks.num_tasks):
        targets = get_current_targets(task, hnet) if task else None
        learned = [*hnet.unconditional_params, hnet.conditional_params[task]]
        optimizer = torch.optim.Adam(learned, lr=lr, fused=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, tasks.steps(task))
        for images, labels in tasks.batches(task):
            weights = hnet.forward(cond_id=task)
            loss = cross_entropy(target.forward(images, weights=weights), labels)
            if task:
                loss = loss + beta * calc_fix_target_reg(hnet, task, targets=targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return lambda task, images: target.forward(images, weights=hnet.forward(cond_id=task))
