"""The exact penalty over very many rows: sums of squares whose cost and memory stay bounded.

Both forms give value and gradients of

    sum over rows r of || s_r * (W x_r + b - (W0 x0_r + b0)) ||^2

with the output layer (W [N, H], b [N]) and features x_r [H] now, and those of the snapshot (0).
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

BLOCK = 256  # rows at a time: [256, N] stays in the processor's cache where whole sets would not


class BlockSquares(Function):
    """Row by row, a block at a time: 3 N H products a row, and memory for one block.

    The gradients are made along with the value and wait for `backward`, so no block is kept.
    """

    @staticmethod
    def forward(
        ctx, features: Tensor, weight: Tensor, bias: Tensor, kept: Callable[[slice], tuple]
    ) -> Tensor:
        """`kept` gives the snapshot's rows and the scales s, both [K, N], of a slice of rows."""
        value = features.new_zeros(())
        d_features = torch.empty_like(features)
        layer_learns = ctx.needs_input_grad[1]
        d_weight = torch.zeros_like(weight) if layer_learns else None
        d_bias = torch.zeros_like(bias) if layer_learns else None
        for start in range(0, len(features), BLOCK):
            block = slice(start, start + BLOCK)
            rows, scales = kept(block)
            change = torch.addmm(bias, features[block], weight.T).sub_(rows).mul_(scales)  # [K, N]
            value += change.square().sum()
            pull = change.mul_(scales)  # [K, N], half the gradient of the rows
            torch.mm(pull, weight, out=d_features[block])
            if layer_learns:
                d_weight.addmm_(pull.T, features[block])
                d_bias += pull.sum(0)
        ctx.save_for_backward(d_features, d_weight, d_bias)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple:
        halves = ctx.saved_tensors
        return *(half if half is None else 2 * grad * half for half in halves), None


class GramSquares(Function):
    """By inner products of the rows: 6 N H^2 + 4 R H^2 products, so it hardly grows with R.

    With d_r = s_r (x_r - x0_r) and A = [W, W - W0, b - b0], the change of row r is
    A (d_r, s_r x0_r, s_r): a sum of small terms, each exact where nothing moved. So the sum of
    squares is the trace of A G A' with the Gram matrix G of those vectors, and no large terms are
    subtracted from one another.
    """

    @staticmethod
    def forward(
        ctx, moved: Tensor, weight: Tensor, bias: Tensor, before: tuple[Tensor, ...]
    ) -> Tensor:
        """`moved`: d_r, [R, H]; `before`: W0, b0, (s_r x0_r, s_r) [R, H + 1], their products."""
        old_weight, old_bias, base, base_gram = before
        vectors = torch.cat([moved, base], 1)  # [R, 2H + 1]
        cross = moved.T @ vectors  # [H, 2H + 1]
        below = torch.cat([cross[:, len(cross) :].T, base_gram], 1)  # [H + 1, 2H + 1]
        gram = torch.cat([cross, below])  # [2H + 1, 2H + 1]
        change = torch.cat([weight, weight - old_weight, (bias - old_bias)[:, None]], 1)  # A
        product = change @ gram  # [N, 2H + 1]
        ctx.save_for_backward(vectors, weight, change, product)
        return (product * change).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple:
        vectors, weight, change, product = ctx.saved_tensors
        width = weight.shape[1]
        d_moved = vectors @ (change.T @ weight)  # [R, H]
        d_weight = product[:, :width] + product[:, width : 2 * width]  # [N, H]
        return 2 * grad * d_moved, 2 * grad * d_weight, 2 * grad * product[:, -1], None


def gram_is_cheaper(num_rows: int, row_length: int, width: int) -> bool:
    """Which form takes fewer products for R rows of length N from H features."""
    gram = 6 * row_length * width**2 + 4 * num_rows * width**2
    return gram < 3 * num_rows * row_length * width
