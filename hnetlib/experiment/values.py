"""Values as people type them: on a command line, after papermill's -p, in a parameters cell."""

import ast
import io
import math
import sys

PLAIN = (bool, int, float, str, list, tuple, dict, type(None))
WORDS = {"true": True, "false": False, "none": None}


def say_in_any_locale() -> None:
    """Lets what is printed have letters that the locale lacks: they are written as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def literal(text: object) -> object:
    """A string as the Python literal it spells (true, false, none in any case), else as it is.

    Sizes may stand with spaces alone: "64 32" is [64, 32]. Numbers and arrays of numpy's, and lists
    of them, are as Python has them.
    """
    if not isinstance(text, str) or not text.strip():
        return _of_python(text)
    if text.strip().lower() in WORDS:
        return WORDS[text.strip().lower()]
    for spelled in (text.strip(), f"[{', '.join(text.split())}]"):
        try:
            value = ast.literal_eval(spelled)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        return value if isinstance(value, PLAIN) else text
    return text


def is_whole(value: object, least: int = 0, most: float = math.inf) -> bool:
    """Whether it is a whole number in these bounds."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def is_number(value: object, least: float = -math.inf, most: float = math.inf) -> bool:
    """Whether it is a finite number in these bounds."""
    sound = isinstance(value, (int, float)) and not isinstance(value, bool)
    # a whole number may be larger than any float
    return sound and abs(value) <= sys.float_info.max and least <= value <= most


def whole(name: str, value: object, least: int = 1, most: float = math.inf, none: bool = False):
    """A parameter that is a whole number, or None where that means a default.

    A string is read as what it spells. Raises a one-line ValueError for all else.
    """
    found = literal(value)
    if not (is_whole(found, least, most) or (none and found is None)):
        bounds = f"of at least {least}" if most == math.inf else f"from {least} to {most}"
        other = ", or None" if none else ""
        raise ValueError(f"{name}: expected a whole number {bounds}{other}, got {value!r}")
    return found


def positive(name: str, value: object):
    """A parameter that is a number above 0; else a one-line ValueError."""
    found = literal(value)
    if not is_number(found) or found <= 0:
        raise ValueError(f"{name}: expected a number above 0, got {value!r}")
    return found


def wholes(name: str, value: object, least: int = 1, most: float = math.inf) -> list[int]:
    """A parameter that is a list of whole numbers, at least one; else a one-line ValueError."""
    found = literal(value)
    if not (_is_list(found) and all(is_whole(item, least, most) for item in found)):
        bounds = f"of at least {least}" if most == math.inf else f"from {least} to {most}"
        raise ValueError(f"{name}: expected a list of whole numbers {bounds}, got {value!r}")
    return list(found)


def shares(name: str, value: object) -> list[float]:
    """A parameter that is a list of different numbers from 0 to 1, with both; else ValueError."""
    found = literal(value)
    sound = _is_list(found) and all(is_number(item, 0, 1) for item in found)
    if not sound or not {0, 1} <= set(found) or len(set(found)) < len(found):
        raise ValueError(
            f"{name}: expected different numbers from 0 to 1, with 0 and 1 among them, "
            f"got {value!r}"
        )
    return [float(item) for item in found]


def _of_python(value: object) -> object:
    import numpy as np  # here: commands that read texts alone start without it

    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return type(value)(map(_of_python, value)) if type(value) in (list, tuple) else value


def _is_list(value: object) -> bool:
    return isinstance(value, (list, tuple)) and len(value) > 0
