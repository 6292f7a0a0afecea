"""A hypernetwork: from a task token to the parameters of any `nn.Module`, chunk by chunk."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, get_args

import torch
from torch import Tensor, nn

from hnetlib.checks import expect_a, expect_at_least, expect_one_of, expect_sizes
from hnetlib.chunks import Cut, FlatChunks, Piece
from hnetlib.generated import Named, split_parameters, starting_values
from hnetlib.layers import HnetActivation, layers_of
from hnetlib.skeleton import Skeleton
from hnetlib.tokens import TaskTokens, Tokens


class Hypernetwork(TaskTokens):
    """Generates the parameters of a module from a task token, in `num_chunks` chunks.

    One chunk is one row: the generator (a dense network) reads a task token and a chunk token and
    writes `chunk_size` of the module's parameters (the chunked hypernetwork of von Oswald et al.,
    arXiv 1906.00695, who call tokens embeddings). `cut` is how they are cut: see `hnetlib.chunks`.

    >>> hnet = Hypernetwork(nn.Linear(784, 10), num_tasks=2, num_chunks=5)
    >>> logits = hnet.run(torch.rand(32, 784), task=1)  # [32, 10]

    Three choices say what kind of hypernetwork it is:

    - `generate`, what is generated: a pattern of the names of parameters, or several. The others
      are shared by all tasks, and learn: no penalty holds them. A frozen parameter
      (`requires_grad=False`) is never generated: it keeps its values, and stays frozen.
    - `cut`, how that is cut into chunks: `FlatChunks`, or `Along` a named dimension.
    - `tokens`, where the task is told: "task", one token per task and chunk tokens that all tasks
      share; or "chunk", a token for each chunk of each task, [C, task_token_dim], and no chunk
      tokens (Ha et al., 1609.09106, have embeddings for each layer, here one set per task).

    Once `freeze_generator` was called, tasks learn their tokens alone, and so none can touch
    another. Sines read short tokens well where `frequency` is above 1: see `sine_layers`.

    Each generated tensor starts with the mean and spread it has in `module`, so one that was
    initialised well stays so. The module itself is copied. Its buffers (statistics of batch norm)
    belong to each task, but for non-persistent ones. Generated tensors have the parameters' dtype;
    the generator itself is float64 where any of them is, else float32.

    `load_state_dict` takes over the tasks of the state: those missing here are added, those that
    only exist here stay. Frozen tokens belong to it. What does not fit changes nothing.
    """

    shared: frozenset[str] = frozenset()  # names `weights_of` gives without a dimension of tasks

    def __init__(
        self,
        module: nn.Module,
        num_tasks: int = 0,
        *,
        num_chunks: int = 1,
        task_token_dim: int = 64,
        chunk_token_dim: int = 32,
        hnet_hidden: Sequence[int] = (200, 250, 350),
        hnet_activation: HnetActivation = "relu",
        generate: str | Sequence[str] = "*",
        cut: Cut = FlatChunks,
        tokens: Tokens = "task",
        frequency: float | None = None,
    ) -> None:
        """`chunk_token_dim` counts for tokens="task" alone, `frequency` for sines alone."""
        super().__init__()
        expect_a(nn.Module, module=module)
        expect_at_least(0, num_tasks=num_tasks)
        sizes = {"task_token_dim": task_token_dim, "chunk_token_dim": chunk_token_dim}
        expect_at_least(1, num_chunks=num_chunks, **sizes)
        expect_one_of("tokens", tokens, get_args(Tokens))
        hnet_hidden = expect_sizes("hnet_hidden", hnet_hidden)
        layers = layers_of(hnet_activation, frequency)
        if not callable(cut):
            raise ValueError(f"cut: expected FlatChunks or Along({{name: dim}}), got {cut!r}")
        generated, kept = split_parameters(module, generate)
        self.layout: list[Piece] = []
        layout = [Piece(names, p.shape, p.dtype) for names, p in generated.items()]
        self.chunks = cut(layout, num_chunks)
        self.num_weights = sum(piece.shape.numel() for piece in layout)  # P, generated ones
        self.task_token_dim, self.tokens = task_token_dim, tokens
        if tokens == "chunk":
            chunk_token_dim = 0
        self.extra_rows: dict[int, Tensor] = {}  # [C, N], added to a task's rows (`LeastChange`)
        self.tasks_run: frozenset[int] = frozenset()  # generated with gradients on

        self._draw_layers(layers, (task_token_dim + chunk_token_dim, *hnet_hidden))
        self.chunk_tokens = nn.Parameter(torch.randn(self.num_chunks, chunk_token_dim))
        # task tokens are drawn last: with one seed, more tasks leave everything else as it was
        self._draw_tokens(num_tasks)
        self._start_as(generated)
        self.layout = layout  # not before: their dtypes follow `to`
        self.kept = Skeleton(module, kept)
        for _ in range(num_tasks):
            self.kept.add_task()
        for part in self.modules():
            part.training = module.training

    def _draw_layers(self, layers: Callable, sizes: tuple[int, ...]) -> None:
        """The body, sizes[0] -> sizes[-1], and the output layer, with values of their own."""
        self.body = nn.Sequential(*layers(sizes))
        self.output_layer = nn.Linear(sizes[-1], self.chunk_size)
        nn.init.normal_(self.output_layer.weight, std=sizes[-1] ** -0.5)  # variance 1
        nn.init.zeros_(self.output_layer.bias)

    def _start_as(self, generated: Named) -> None:
        """The module's device and precision, and its starting values as shift and scale."""
        is_double = any(p.dtype == torch.float64 for p in generated.values())
        dtype = torch.float64 if is_double else torch.float32
        self.to(next(iter(generated.values())).device, dtype)
        values = [starting_values(parameter, dtype) for parameter in generated.values()]
        shift, scale = (torch.cat(parts) for parts in zip(*values, strict=True))  # [P] each
        self.register_buffer("shift", self.chunks.cut(shift))  # [C, N]
        self.register_buffer("scale", self.chunks.cut(scale))  # [C, N], 0 for padding

    @property
    def target(self) -> nn.Module:
        """The module, without values."""
        return self.kept.empty

    @property
    def num_chunks(self) -> int:
        """C, in how many rows the parameters are generated."""
        return self.chunks.num_chunks

    @property
    def chunk_size(self) -> int:
        """N, the length of a row."""
        return self.chunks.chunk_size

    @property
    def relative_size(self) -> float:
        """All parameters here, tokens included, over those of the module: 36 is 36 times more."""
        shared = sum(p.numel() for p in self.kept.shared.parameters())
        return sum(p.numel() for p in self.parameters()) / (self.num_weights + shared)

    def run(self, *inputs: Any, task: int | Tensor, **kwargs: Any) -> Any:
        """What the module computes for a task: arguments and result are the module's.

        What it keeps in attributes that are no buffers is one for all tasks, a weight it merged
        or a cache too; and threads can't share it. A network of its own is `materialize(task)`.
        """
        return self.run_target(self(task), *inputs, **kwargs)

    def forward(self, task: int | Tensor) -> dict[str, Tensor]:
        """All that the module needs for a task, by name: as `module.state_dict()` has it.

        `task`: an index of any integer kind, or a token of shape `token_shape` (then with copies of
        the buffers at the start).
        """
        if isinstance(task, Tensor) and task.is_floating_point():
            self._note(n for n, token in enumerate(self.task_tokens) if token is task)
            if task.shape != self.token_shape:
                expected = list(self.token_shape)
                raise ValueError(f"token: expected shape {expected}, got {list(task.shape)}")
            return self.unflatten(self.generate(task)) | self.kept.values()
        number = self.index_of(task)
        return self.weights_from(self._rows(number), number)

    def weights_from(self, rows: Tensor, task: int) -> dict[str, Tensor]:
        """The same, where `rows` [C, N] are what the output layer wrote for the task.

        Of a task with a selection: [U, N], for the chunks that have a token.
        """
        self._note([task])
        return self.unflatten(self._flat(rows, task)) | self.kept.values(task)

    def chunks_of(self, task: int | Tensor) -> Tensor:
        """The generated parameters of a task chunk by chunk, [C, N], padding included.

        Of a task with a selection: [U, N], of the chunks that have a token.
        """
        number = self.index_of(task)
        self._note([number])
        return self._values(self._rows(number), number)

    def weights_of(self, tasks: Tensor | Sequence[int]) -> dict[str, Tensor]:
        """The same for several tasks [G]: each [G, *shape], for `vmap(hnet.run_target)`.

        Buffers are copies: what the module does to them is not kept.
        """
        numbers = [self.index_of(task) for task in tasks]
        if not numbers:
            raise ValueError("tasks: expected at least one, got none")
        self._note(numbers)
        if self.selections.among(numbers):  # rows of several lengths
            rows = [self.output_layer(self.features(*self.pairs_of(n))) for n in numbers]
            flat = torch.stack([self._flat(r, n) for r, n in zip(rows, numbers, strict=True)])
            return self.unflatten(flat) | self.kept.values_of(numbers)
        rows = self.rows_of(torch.stack([self.task_tokens[n] for n in numbers]))  # [G, C, N]
        if self.extra_rows.keys() & set(numbers):
            nothing = torch.zeros_like(self.scale)
            rows = rows + torch.stack([self.extra_rows.get(n, nothing) for n in numbers])
        return self.unflatten(self.flatten(rows)) | self.kept.values_of(numbers)

    def run_target(self, weights: dict[str, Tensor], /, *inputs: Any, **kwargs: Any) -> Any:
        """What the module computes with these weights; its buffers change in place.

        Buffers that they lack are as at the start, shared parameters as they are. A module that
        computes parts of itself again in backward (`torch.utils.checkpoint`) can't be run so:
        `materialize(task, attached=True)` can.
        """
        return self.kept.run(weights, inputs, kwargs)

    def materialize(self, task: int | Tensor, *, attached: bool = False) -> nn.Module:
        """The network of a task as a module of its own, to train or to ship; it shares nothing.

        With `attached` its parameters are the generated tensors, so gradients reach this one.
        """
        with torch.set_grad_enabled(attached and torch.is_grad_enabled()):
            return self.kept.filled(self(task), attached)

    def generate(self, tokens: Tensor) -> Tensor:
        """Flat generated parameters [..., P] of task tokens [..., *token_shape]."""
        return self.flatten(self.rows_of(tokens))

    def rows_of(self, tokens: Tensor) -> Tensor:
        """What the output layer writes, [..., C, N], for task tokens [..., *token_shape]."""
        shape = self.token_shape
        if tokens.shape[-len(shape) :] != shape:
            expected = ", ".join(map(str, shape))
            got = list(tokens.shape)
            raise ValueError(f"token: expected shape [..., {expected}], got {got}")
        return self.output_layer(self.features(self.each_chunk(tokens), self.chunk_tokens))

    def each_chunk(self, tokens: Tensor) -> Tensor:
        """What each chunk reads, [..., C, K], of task tokens [..., *token_shape]."""
        if self.tokens == "chunk":
            return tokens
        return tokens.unsqueeze(-2).expand(*tokens.shape[:-1], self.num_chunks, -1)

    def pairs_of(self, task: int) -> tuple[Tensor, Tensor]:
        """The pairs of tokens that `features` reads for a task: [C, task_token_dim], [C, E].

        Of a task with a selection: of the chunks that have a token, [U, ...].
        """
        chosen, chunk_tokens = self.selections.of(task), self.chunk_tokens
        if chosen is not None:
            chunk_tokens = chunk_tokens[chosen]
        return self.each_chunk(self.task_tokens[task]), chunk_tokens

    def features(self, task_tokens: Tensor, chunk_tokens: Tensor) -> Tensor:
        """What the output layer reads, [..., C, H], for pairs of tokens [..., C, either dim].

        It makes rows [..., C, N] of it, which `scale` and `shift` turn into parameters.
        """
        chunk_tokens = chunk_tokens.expand(*task_tokens.shape[:-1], -1)
        return self.body(torch.cat([task_tokens, chunk_tokens], dim=-1))  # [..., C, H]

    def _rows(self, task: int) -> Tensor:
        """What the output layer writes for a task, [C, N] or [U, N], and what is added to it."""
        rows = self.output_layer(self.features(*self.pairs_of(task)))
        return rows + self.extra_rows[task] if task in self.extra_rows else rows

    def flatten(self, rows: Tensor) -> Tensor:
        """Flat generated parameters [..., P] of what the output layer wrote, [..., C, N]."""
        return self.chunks.flatten(rows * self.scale + self.shift)

    def _flat(self, rows: Tensor, task: int) -> Tensor:
        """The same of one task [P], whose rows [U, N] are those of its selection, if it has one."""
        if self.selections.of(task) is None:
            return self.flatten(rows)
        return self.chunks.flatten(self.selections.spread(self._values(rows, task), task))

    def _values(self, rows: Tensor, task: int) -> Tensor:
        chosen = self.selections.of(task)
        if chosen is None:
            return rows * self.scale + self.shift
        return torch.addcmul(self.shift[chosen], rows, self.scale[chosen])

    def _note(self, tasks: Iterable[int]) -> None:
        """That these were generated with gradients on: what was learned is among them."""
        if torch.is_grad_enabled():
            self.tasks_run |= frozenset(tasks)

    def unflatten(self, flat: Tensor) -> dict[str, Tensor]:
        """Tensors by name, each [..., *shape], from flat generated parameters [..., P]."""
        # copies of one task's: what a module changes in its forward can't be such a view
        split = torch.split_with_sizes_copy if flat.dim() == 1 else torch.split
        pieces = split(flat, [piece.shape.numel() for piece in self.layout], dim=-1)
        weights = {}
        for values, (names, shape, dtype) in zip(pieces, self.layout, strict=True):
            tensor = values.reshape((*values.shape[:-1], *shape)).to(dtype)  # [..., *shape]
            weights |= dict.fromkeys(names, tensor)
        return weights

    def extra_repr(self) -> str:
        """Sizes."""
        sizes = f"num_chunks={self.num_chunks}, chunk_size={self.chunk_size}"
        return f"num_tasks={self.num_tasks}, num_weights={self.num_weights}, {sizes}"

    def _apply(self, fn, recurse=True):
        """Generated tensors follow `to` and its like in dtype."""
        super()._apply(fn, recurse)
        self.layout = [
            piece._replace(dtype=self.target.get_parameter(piece.names[0]).dtype)
            for piece in self.layout
        ]
        return self
