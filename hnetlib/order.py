"""What would cost learned tasks without a word is named: before a task is learned, and after.

`keep` is a `TaskRegularizer`, which asks for these.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import torch


class NotLearnedError(RuntimeError):
    """A task was run, but nothing was learned of it, or no finite numbers were."""


def check_order(keep: Any, task: int) -> None:
    """Wrong orders of calls: RuntimeError or ValueError."""
    if keep.task is not None:
        raise RuntimeError(f"learning({task}): task {keep.task} is still being learned")
    if keep.resumed not in (None, task):
        raise RuntimeError(
            f"learning({task}): the loaded state is in the middle of task {keep.resumed}"
        )
    if task in keep.old_tasks:
        raise ValueError(f"learning({task}): expected a task that is not learned yet")
    hnet = keep.hnet
    if hnet.generator_frozen and any(p.requires_grad for p in hnet.shared_parameters()):
        raise RuntimeError(
            f"learning({task}): the generator was frozen, which holds old tasks, but some of "
            "it has requires_grad; hnet.freeze_generator() freezes it again"
        )
    frozen = [s for s, token in enumerate(hnet.task_tokens) if not token.requires_grad]
    thawed = sorted(set(keep.old_tasks) - set(frozen))
    if thawed:
        raise RuntimeError(
            f"learning({task}): tasks {thawed} are old ones, but have no frozen token here; "
            "hnet.load_state_dict(...) or hnet.freeze_token(task) is missing"
        )
    unknown = sorted(set(frozen) - set(keep.old_tasks))
    if unknown and not hnet.generator_frozen:
        raise RuntimeError(
            f"learning({task}): the tokens of tasks {unknown} are frozen, but nothing holds "
            f"what they generate; TaskRegularizer(hnet, old_tasks={frozen}) would"
        )


def check_selections(keep: Any, task: int, held: Sequence[int]) -> None:
    """What snapshots and least change can't do yet, said before anything is learned."""
    hnet = keep.hnet
    if keep.least_change and (hnet.generator_frozen or hnet.selections.among([task])):
        raise ValueError("least_change: expected a generator that learns, and all chunks")
    kept = [*held, task] if keep.snapshot == "at_learning" else held
    selected = [] if hnet.generator_frozen else hnet.selections.among(kept)
    if selected:
        raise ValueError(
            f"learning({task}): tasks {selected} have tokens for some chunks alone, which "
            "wants a frozen generator: hnet.freeze_generator()"
        )


def warn_of_shared(keep: Any, task: int) -> None:
    """The penalty is of generated parameters: what tasks share besides may move under old ones."""
    hnet = keep.hnet
    shared = hnet.kept.shared.by_name()
    moving = [name for name, p in shared.items() if p.requires_grad]
    if keep.old_tasks and moving and not hnet.generator_frozen:
        warnings.warn(
            f"learning({task}): {', '.join(moving)} are shared by all tasks and learn, and nothing "
            f"holds them for the old tasks {keep.old_tasks}; requires_grad_(False), "
            "hnet.freeze_generator() or generating them would",
            stacklevel=5,
        )


def check_learned(keep: Any) -> None:
    """NotLearnedError where a task was run, but its token did not move, or is not finite."""
    run, task = keep.hnet.tasks_run, keep.task
    token, before = keep.hnet.task_tokens[task], keep.token_before
    if not run:  # nothing was trained here, or by tokens
        if keep.asked and keep.old_tasks and torch.equal(token, before):
            warnings.warn(
                f"learning({task}): the penalty was asked for, but the hypernetwork that it is of "
                "was not run, and has not learned the task; was a copy of it trained?",
                stacklevel=4,
            )
        return
    if task not in run:
        raise NotLearnedError(f"learning({task}): only {sorted(run)} were run; not learned")
    if token.shape != before.shape:
        raise NotLearnedError(
            f"learning({task}): its chunks were selected meanwhile, so that no optimizer has its "
            "new token; select_chunks comes before learning()"
        )
    if not token.isfinite().all():
        raise NotLearnedError(
            f"learning({task}): its token is not finite any more; lower rates help"
        )
    # where nothing behind it is alive (one ReLU, say) its gradient is 0: no optimizer moves it
    dead = token.grad is not None and not token.grad.any()
    if torch.equal(token, before) and not dead:
        raise NotLearnedError(
            f"learning({task}): its token did not move; an optimizer needs "
            f"hnet.parameters_of({task}), and a rate that is not too small"
        )
