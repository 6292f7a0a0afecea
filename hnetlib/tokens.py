"""What a hypernetwork has for each task: tokens, which of them there are, and what is frozen."""

import operator
from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn

from hnetlib.skeleton import Skeleton
from hnetlib.states import description, expect_a_state_of, unchanged_if_it_fails

DESCRIPTION = "description"  # in a state: of which module it is
Tokens = Literal["task", "chunk"]


class Selections(nn.Module):
    """For some tasks: which of the C chunks have a token, [C] bool; all others have all of them.

    A bit per chunk for each of those tasks, which a state dict carries.
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


class TaskTokens(nn.Module):
    """The part of a hypernetwork that is about tasks: `Hypernetwork` is made of it."""

    tokens: Tokens  # one per task, or one for each chunk of each task
    task_token_dim: int  # K
    num_chunks: int  # C
    chunk_tokens: nn.Parameter  # [C, chunk_token_dim]
    body: nn.Module
    output_layer: nn.Linear
    kept: Skeleton
    generator_frozen = False

    def _draw_tokens(self, num_tasks: int) -> None:
        """The tokens at the start, of PyTorch's global generator."""
        self.task_tokens = nn.ParameterList(torch.randn(self.token_shape) for _ in range(num_tasks))
        self.selections = Selections()

    @property
    def num_tasks(self) -> int:
        """How many task tokens there are."""
        return len(self.task_tokens)

    @property
    def token_shape(self) -> tuple[int, ...]:
        """Of one task: [K], or [C, K] with a token for each chunk."""
        each = (self.num_chunks,) if self.tokens == "chunk" else ()
        return (*each, self.task_token_dim)

    def add_task(self) -> int:
        """A new task with a random token, of PyTorch's global generator; returns its index."""
        self._append(torch.randn(self.token_shape))
        return self.num_tasks - 1

    def parameters_of(self, task: int) -> list[nn.Parameter]:
        """What an optimizer of this task needs: all that learns, but other tasks' tokens."""
        mine = self.task_tokens[self.index_of(task)]
        others = {id(token) for token in self.task_tokens if token is not mine}
        return [p for p in self.parameters() if p.requires_grad and id(p) not in others]

    def freeze_token(self, task: int) -> None:
        """From now on the token of `task` stays as it is; chunk tokens go on learning."""
        token = self.task_tokens[self.index_of(task)]
        token.requires_grad_(False)
        token.grad = None

    def freeze_generator(self) -> None:
        """From now on all that tasks share stays as it is, and they learn their tokens alone.

        Then no task changes what another generates: tasks may be learned in any order or place,
        and `TaskRegularizer` keeps nothing for them, as there is nothing to penalise.
        """
        self._hold_generator(True)

    def select_chunks(self, task: int, chunks: Tensor) -> None:
        """Of this task, only these chunks ([C] bool) have a token; others generate parameters of 0.

        Their tokens are gone, so call it before the task is learned. ValueError without tokens for
        each chunk, or where the task has a selection or is frozen.
        """
        number, chosen = self.index_of(task), checked(chunks, self.num_chunks)
        token = self.task_tokens[number]
        if self.tokens != "chunk":
            raise ValueError('select_chunks: expected a hypernetwork with tokens="chunk"')
        if not token.requires_grad or self.selections.of(number) is not None:
            raise ValueError(f"select_chunks: the tokens of task {number} are frozen or selected")
        chosen = chosen.to(token.device)
        self.selections.put(number, chosen)
        self.task_tokens[number] = nn.Parameter(token.detach()[chosen])  # [U, K]

    def index_of(self, task: int | Tensor) -> int:
        """A task's index as an int: TypeError for other kinds, IndexError where there is none."""
        kind = getattr(task, "dtype", type(task))
        if not hasattr(task, "__index__") or kind in (bool, torch.bool) or getattr(task, "ndim", 0):
            raise TypeError(f"task: expected an integer or a token, got {task!r}")
        number = operator.index(task)
        if not 0 <= number < self.num_tasks:
            raise IndexError(
                f"task: expected one of the {self.num_tasks} there are, counted from 0 "
                f"(add_task makes more), got {number}"
            )
        return number

    def get_extra_state(self) -> Tensor:
        """Which tokens are frozen, [T]; where the generator is, [2, T], of which one row counts."""
        frozen = torch.tensor([not token.requires_grad for token in self.task_tokens])
        return frozen.expand(2, -1).clone() if self.generator_frozen else frozen

    def set_extra_state(self, frozen: Tensor) -> None:
        """Freezes those, and no others."""
        if (frozen.dim() == 2) != self.generator_frozen:
            self._hold_generator(frozen.dim() == 2)
        frozen = frozen[0] if frozen.dim() == 2 else frozen
        for token, is_frozen in zip(self.task_tokens, frozen.tolist(), strict=False):
            token.requires_grad_(not is_frozen)

    def shared_parameters(self) -> list[nn.Parameter]:
        """All that tasks share: the generator, chunk tokens, and what of the module stays."""
        generator = (*self.body.parameters(), *self.output_layer.parameters(), self.chunk_tokens)
        return [*generator, *self.kept.shared.parameters()]

    def _hold_generator(self, hold: bool) -> None:
        """Freezes or thaws what tasks share; what was frozen in the module itself stays so."""
        self.generator_frozen, of_module = hold, self.kept.shared.by_name()
        frozen = {
            id(p) for n, p in of_module.items() if not self.target.get_parameter(n).requires_grad
        }
        for parameter in self.shared_parameters():
            parameter.requires_grad_(not hold and id(parameter) not in frozen)
        for parameter in self.parameters():
            parameter.grad = parameter.grad if parameter.requires_grad else None

    def _append(self, token: Tensor) -> None:
        self.task_tokens.append(nn.Parameter(token.to(self.chunk_tokens.detach())))
        self.kept.add_task()

    def load_state_dict(self, state_dict, *args, **kwargs):
        """As PyTorch has it, but a state that does not fit changes nothing."""
        if self.extra_rows:
            raise RuntimeError(
                f"load_state_dict: task {min(self.extra_rows)} is being learned with LeastChange, "
                "whose change is in no state of the hypernetwork; to go back within a task, copy "
                "earlier values into the parameters, and into `least_change.change`"
            )
        with unchanged_if_it_fails(self):
            return super().load_state_dict(state_dict, *args, **kwargs)

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}{DESCRIPTION}"] = description(self)

    def _load_from_state_dict(self, state_dict, prefix, *args):
        """Adds tasks that only the state has; those that only exist here stay as they are."""
        described = state_dict.pop(f"{prefix}{DESCRIPTION}", None)
        if described is not None:  # an older state has none
            expect_a_state_of(self, described)
        parts = [f"{prefix}{name}." for name in ("task_tokens", "kept.tasks")]
        given = sum(key.startswith(parts[0]) for key in state_dict)
        for _ in range(given - self.num_tasks):
            self._append(torch.zeros(self.token_shape))
        self.selections.take_over(state_dict, f"{prefix}selections.", given)
        for number in range(given if self.tokens == "chunk" else 0):
            chosen = self.selections.of(number)
            length = self.num_chunks if chosen is None else int(chosen.sum())
            if len(self.task_tokens[number]) != length:
                self.task_tokens[number] = nn.Parameter(
                    self.scale.new_zeros(length, self.task_token_dim)
                )
        for key, value in self.state_dict(prefix=prefix).items():
            number = key.removeprefix(parts[0]).removeprefix(parts[1]).partition(".")[0]
            if key.startswith(tuple(parts)) and int(number) >= given:
                state_dict[key] = value
        state_dict.setdefault(f"{prefix}_extra_state", self.get_extra_state())
        super()._load_from_state_dict(state_dict, prefix, *args)
