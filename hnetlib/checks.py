"""Settings are checked where they come in: one line says what was expected and what came."""

from collections.abc import Iterable
from types import UnionType
from typing import get_args


def expect_one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Raises a one-line ValueError unless `value` is among the `allowed` ones."""
    if value not in allowed:
        raise ValueError(f"{name}: expected one of {', '.join(allowed)}, got {value!r}")


def expect_at_least(least: int, **sizes: int) -> None:
    """Raises a one-line ValueError for the first of these that is no whole number from there on."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not hasattr(size, "__index__") or size < least:
            raise ValueError(f"{name}: expected a whole number of at least {least}, got {size!r}")


def expect_a(kind: type | UnionType, **values: object) -> None:
    """Raises a one-line TypeError for the first of these that is no `kind`."""
    for name, value in values.items():
        if not isinstance(value, kind):
            came = value if isinstance(value, type) else type(value)
            given = f"the class {came.__name__}" if came is value else came.__name__
            expected = " or ".join(one.__name__ for one in get_args(kind) or (kind,))
            raise TypeError(f"{name}: expected {expected}, got {given}")


def expect_sizes(name: str, sizes: Iterable[int]) -> tuple[int, ...]:
    """The sizes of layers; raises a one-line ValueError unless there are some, all above 0."""
    found = tuple(sizes) if isinstance(sizes, Iterable) else ()
    if not found or not all(hasattr(size, "__index__") and size >= 1 for size in found):
        got = list(found) or sizes
        raise ValueError(f"{name}: expected positive layer sizes, as (64, 64), got {got}")
    return found
