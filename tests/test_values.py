"""Values as people type them."""

import numpy as np
import pytest

from hnetlib.experiment.values import literal


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("20", 20),
        ("-1e-3", -1e-3),
        ("True", True),
        ("false", False),
        ("NONE", None),
        ("[64, 32]", [64, 32]),
        ("64 32", [64, 32]),
        ("(1, 2)", (1, 2)),
        ("mlp-100", "mlp-100"),
        ("", ""),
        ("a b", "a b"),
        (3, 3),
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        (np.arange(2), [0, 1]),
        ([np.int64(64), 32], [64, 32]),
    ],
)
def test_a_value_is_what_it_spells(text, value):
    assert literal(text) == value
    assert type(literal(text)) is type(value)
