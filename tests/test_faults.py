"""The short form of `make faults`."""

import faults
import pytest


@pytest.mark.parametrize("kills", [3, pytest.param(15, marks=pytest.mark.slow)])
def test_killed_anywhere_it_ends_as_if_never_stopped(capsys, kills):
    assert faults.main(["--kills", str(kills), "--reports", "0", "--seed", "1"]) == 0
    assert "all as if never stopped" in capsys.readouterr().out
