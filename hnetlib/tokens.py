"""Which chunks of a task have a token, where tokens are one for each chunk of each task."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Selections(nn.Module):
    """For some tasks: which of the C chunks have a token, [C] bool; all others have all of them.

    A bit a chunk for each of those tasks, which a state dict carries.
    """

    def of(self, task: int) -> Tensor | None:
        """Which chunks [C] have one; None: all."""
        return self._buffers.get(str(task))

    def among(self, tasks: Iterable[int]) -> list[int]:
        """Those of the tasks that have tokens for some chunks alone."""
        return [task for task in tasks if self.of(task) is not None]

    def put(self, task: int, chosen: Tensor | None) -> None:
        """From now on these; None: all."""
        self._buffers.pop(str(task), None)
        if chosen is not None:
            self.register_buffer(str(task), chosen.detach().bool().clone())

    def spread(self, values: Tensor, task: int) -> Tensor:
        """Rows [C, N] of those [U, N] of the chunks that have a token: 0 for the others."""
        chosen = self.of(task)
        if chosen is None:
            return values
        everywhere = values.new_zeros(len(chosen), values.shape[-1])
        return everywhere.index_copy(0, chosen.nonzero()[:, 0], values)

    def extra_repr(self) -> str:
        """How many tasks."""
        return f"tasks={len(self._buffers)}"

    def take_over(self, state_dict: dict[str, Tensor], prefix: str, tasks: int) -> None:
        """Makes room for what the state has of the first `tasks` tasks; keeps those of the rest."""
        for task in range(tasks):
            self.put(task, state_dict.get(f"{prefix}{task}"))
        for task in [int(name) for name in self._buffers if int(name) >= tasks]:
            state_dict[f"{prefix}{task}"] = self.of(task)


def checked(chosen: Tensor, num_chunks: int) -> Tensor:
    """A selection [C] bool; ValueError where it is none, or has no chunk at all."""
    mask = torch.as_tensor(chosen)
    if mask.dtype != torch.bool or mask.shape != (num_chunks,):
        got = f"{mask.dtype} {list(mask.shape)}"
        raise ValueError(f"chunks: expected a bool for each of {num_chunks} chunks, got {got}")
    if not mask.any():
        raise ValueError("chunks: expected at least one with a token, got none")
    return mask
