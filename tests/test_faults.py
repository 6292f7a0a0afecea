"""The short form of `make faults`."""

import faults


def test_killed_anywhere_it_ends_as_if_never_stopped(capsys):
    assert faults.main(["--kills", "9", "--reports", "0", "--seed", "1"]) == 0
    assert "all as if never stopped" in capsys.readouterr().out
