"""A reader's own surroundings: locale, home, matplotlibrc, threads, devices."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import QUICK, one_line

from hnetlib.experiment import paths
from hnetlib.train import main

ROOT = paths.PACKAGE.parent


@pytest.mark.parametrize(
    "variables",
    [
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "ascii"},
        {"HOME": "/dev/null/home"},
        {"MPLCONFIGDIR": "/proc/none", "XDG_CACHE_HOME": "/proc/none"},
        {"MATPLOTLIBRC": "{tmp}/matplotlibrc"},
        {"OMP_NUM_THREADS": "64"},
    ],
    ids=lambda variables: "-".join(variables),
)
@pytest.mark.slow
def test_surroundings_do_not_stop_a_run(tmp_path, variables):
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nfont.family: no such font\n")
    place = tmp_path / "größe"
    variables = {name: value.format(tmp=tmp_path) for name, value in variables.items()}
    done = subprocess.run(
        [sys.executable, "-m", "hnetlib.train", *QUICK],
        cwd=ROOT,
        env=os.environ | {"HNETLIB_RUNS": str(place)} | variables,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert b"lacks its end" not in done.stderr
    assert list(place.glob("*/metrics.json"))


def test_figures_do_not_follow_a_readers_matplotlibrc():
    code = (
        "import matplotlib; matplotlib.rcParams['text.usetex'] = True\n"
        "matplotlib.rcParams['axes.facecolor'] = 'red'\n"
        "from hnetlib import plots\n"
        "print(matplotlib.rcParams['text.usetex'], matplotlib.rcParams['axes.facecolor'])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "False white\n", done.stderr


def executed(tmp_path) -> Path:
    import nbformat
    from nbformat.v4 import new_code_cell, new_notebook

    source = tmp_path / "01_a.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("print('größe ±')")]), source)
    return source


@pytest.mark.slow
def test_letters_that_the_locale_lacks_stop_no_chapter_and_no_page(tmp_path):
    ascii = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)}
    place = tmp_path / "ü"
    page = ["--profile", "smoke", "--dataset", "mnist5k", "--out", place / "r.html"]
    commands = [
        ["report.execute", executed(tmp_path), place / "01_a.ipynb"],
        ["report.build", *page, place / "01_a.ipynb"],
    ]
    for name, *arguments in commands:
        done = subprocess.run(
            [sys.executable, "-m", name, *arguments], env=ascii, capture_output=True
        )
        assert done.returncode == 0, done.stderr
        assert b"Traceback" not in done.stderr
    assert "größe ±" in (place / "01_a.ipynb").read_text(encoding="utf-8")
    assert (place / "r.html").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--device", "cuda"],
        ["--device", "tpu"],
        ["--lr", "nan"],
        ["--lr", "inf"],
        ["--beta", "nan"],
    ],
)
def test_what_the_machine_or_the_settings_lack_is_one_line(capsys, arguments):
    if arguments[-1] == "cuda" and torch.cuda.is_available():
        pytest.skip("has a GPU")
    assert main([*QUICK, *arguments]) == 2
    assert one_line(capsys).startswith(f"error: {arguments[0][2:]}: expected ")


@pytest.mark.parametrize("arguments", [["--threads", "100000000000"]])
def test_a_number_that_pytorch_refuses_is_one_line(capsys, arguments):
    assert main([*QUICK, *arguments]) in (1, 2)
    assert one_line(capsys).startswith("error: ")
