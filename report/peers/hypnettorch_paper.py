"""hypnettorch: the ten tasks of the paper by the settings of its authors, as in profile paper10."""

import torch
from hypnettorch.hnets.chunked_mlp_hnet import ChunkedHMLP
from hypnettorch.mnets.mlp import MLP
from hypnettorch.utils.hnet_regularizer import calc_fix_target_reg, get_current_targets
from hypnettorch.utils.optim_step import calc_delta_theta
from torch.nn.functional import cross_entropy


def learn(
    tasks,
    lr=1e-4,
    beta=0.1,
    num_chunks=24,
    hidden=(1000, 1000),
    look_ahead=True,
    start="library",
    own_heads=False,
):
    num_heads = tasks.num_tasks if own_heads else 1
    target = MLP(n_in=tasks.num_pixels, n_out=10 * num_heads, hidden_layers=hidden, no_weights=True)
    hnet = ChunkedHMLP(
        target.param_shapes,
        -(-target.num_params // num_chunks),
        chunk_emb_size=8,
        cond_in_size=24,
        layers=(25, 25),
        activation_fn=torch.nn.ELU(),
        num_cond_embs=tasks.num_tasks,
    )
    {"library": lambda _: None, "xavier": start_with_xavier}[start](hnet)

    def logits(images, weights, task):
        head = 10 * task if own_heads else 0
        return target.forward(images, weights=weights)[:, head : head + 10]

    shared = hnet.unconditional_params
    for task in range(tasks.num_tasks):
        targets = get_current_targets(task, hnet) if task else None
        optimizer = torch.optim.Adam(shared, lr=lr, fused=True)
        of_token = torch.optim.Adam([hnet.conditional_params[task]], lr=lr, fused=True)
        for images, labels in tasks.batches(task):
            weights = hnet.forward(cond_id=task)
            optimizer.zero_grad()
            of_token.zero_grad()
            cross_entropy(logits(images, weights, task), labels).backward()
            if task:
                ahead = calc_delta_theta(optimizer, False, detach_dt=True) if look_ahead else None
                penalty = calc_fix_target_reg(hnet, task, targets=targets, dTheta=ahead)
                (beta * penalty).backward()
            optimizer.step()
            of_token.step()
    return lambda task, images: logits(images, hnet.forward(cond_id=task), task)


def start_with_xavier(hnet):
    """As the scripts of the paper's authors start (chrhenning/hypercl, mnist/train_utils.py)."""
    for weight, bias in zip(hnet.layer_weight_tensors, hnet.layer_bias_vectors, strict=True):
        torch.nn.init.xavier_uniform_(weight)
        torch.nn.init.zeros_(bias)
