"""Settings are checked where they come in: one line says what was expected and what came."""


def expect_one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Raises a one-line ValueError unless `value` is among the `allowed` ones."""
    if value not in allowed:
        raise ValueError(f"{name}: expected one of {', '.join(allowed)}, got {value!r}")


def expect_at_least(least: int, **sizes: int) -> None:
    """Raises a one-line ValueError for the first of these sizes that is below `least`."""
    for name, size in sizes.items():
        if size < least:
            raise ValueError(f"{name}: expected at least {least}, got {size}")
