"""Grids of settings, as text or in a small YAML file, and the list of all their combinations.

    beta=0.01,0.03 seed=0..2 hnet_hidden=[32,32],[64]     values, a range of whole numbers, lists
    seed+permutation_seed=0..2                            names that take the same value

In YAML that is `beta: [0.01, 0.03]` and `seed: 0..2`, a line each; a YAML list holds several grids,
one after the other. What is wrong is a ValueError of one line.
"""

import itertools
import math
import re
from collections import Counter
from pathlib import Path

import yaml

from hnetlib.experiment.values import literal

RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)")
COMMA = re.compile(r",(?![^\[]*\])")  # outside of brackets
MOST = 100_000  # combinations


def combinations(grid: str) -> list[dict]:
    """Settings of every combination of a grid, or of the grids in a YAML file; each once."""
    word = grid.strip()
    grids = _of_file(Path(word)) if word.endswith((".yaml", ".yml")) else [_of_text(word)]
    if sum(math.prod(map(len, choices.values())) for choices in grids) > MOST:
        raise ValueError(f"grid: expected at most {MOST:,} combinations, got more")
    found = [
        {name: value for names, value in zip(choices, values, strict=True) for name in names}
        for choices in grids
        for values in itertools.product(*choices.values())
    ]
    return list({repr(settings): settings for settings in found}.values())


def _of_text(grid: str) -> dict[tuple, list]:
    pairs = [word.partition("=") for word in grid.split()]
    for name, equals, _ in pairs or [("nothing", "", "")]:
        if not (name and equals):
            raise ValueError(f"grid: expected name=value,value or name=first..last, got {name}")
    return _checked([(name, COMMA.split(values)) for name, _, values in pairs])


def _of_file(path: Path) -> list[dict[tuple, list]]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_EachNameOnce)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: expected a grid in YAML ({_one_line(error)})") from error
    grids = content if isinstance(content, list) else [content]
    if not grids or not all(isinstance(grid, dict) for grid in grids):
        raise ValueError(f"{path}: expected lines of name: [value, value], got {content!r}")
    return [
        _checked([(str(k), v if isinstance(v, list) else [v]) for k, v in grid.items()])
        for grid in grids
    ]


class _EachNameOnce(yaml.SafeLoader):
    """YAML itself keeps the last of two lines of one name."""

    def construct_mapping(self, node, deep=False):
        """The mapping; an error that names its line where a name comes again."""
        names = [self.construct_object(key) for key, _ in node.value]
        for number, name in enumerate(names):
            if name in names[:number]:
                where = node.value[number][0].start_mark
                raise yaml.constructor.ConstructorError(None, None, f"{name} comes twice", where)
        return super().construct_mapping(node, deep)


def _checked(pairs: list[tuple[str, list]]) -> dict[tuple, list]:
    """Names, those joined by + together, and the values they take."""
    choices = {tuple(name.split("+")): _values(name, items) for name, items in pairs}
    names = Counter(name for joined, _ in pairs for name in joined.split("+"))
    for name, times in names.items():
        if times > 1:
            raise ValueError(f"{name}: expected once in a grid, got it {times} times")
    return choices


def _values(name: str, items: list) -> list:
    found = [value for item in items for value in _spelled(name, item)]
    if not found:
        raise ValueError(f"{name}: expected at least one value, got none")
    (value, times), *_ = Counter(map(repr, found)).most_common(1)
    if times > 1:
        raise ValueError(f"{name}: expected different values, got {value} {times} times")
    return found


def _spelled(name: str, item: object) -> list:
    """The values that one item stands for: those of a range, or itself."""
    if item in ("", None):
        raise ValueError(f"{name}: expected a value, got nothing")
    bounds = RANGE.fullmatch(item) if isinstance(item, str) else None
    if not bounds:
        return [literal(item)]
    first, last = map(int, bounds.groups())
    if last < first:
        raise ValueError(f"{name}: expected first..last, the last not below the first, got {item}")
    if last - first >= MOST:
        raise ValueError(f"{name}: expected at most {MOST:,} values, got {item}")
    return list(range(first, last + 1))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
