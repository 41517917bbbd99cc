"""The pages of the repository: the code that they show runs, and the commands that they show are there."""

import doctest
import pydoc
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import typer.main
from PIL import Image

from checks import SKELETONS, blocks, skeleton
from liouville.cli import app
from liouville.recipes import IMAGE_RECIPES, RECIPES

# What a page says of its time is too long for a test: each budget becomes a few steps of a small net.
SHORTER = {
    r"Detector\(max_seconds=\d+": "Detector(max_iter=3",
    r"max_seconds=\d+": "max_iter=3, width=8, depth=1",
    r"Budget\(max_iter=\d+\)": "Budget(max_iter=3)",
}


@pytest.mark.parametrize("number", range(len(blocks("README.md", "python"))))
def test_python_of_the_readme_runs(number, tmp_path, monkeypatch):
    code, num_budgets = blocks("README.md", "python")[number], 0
    for long, short in SHORTER.items():
        code, num = re.subn(long, short, code)
        num_budgets += num
    # A fit with a budget of another kind would run for as long as it says.
    assert num_budgets == len(re.findall(r"\.fit\(|\bTrainer\(", code))
    rng = np.random.default_rng(0)
    for name in ("train", "test"):
        (tmp_path / name).mkdir()
        for i, picture in enumerate(rng.integers(0, 256, size=(12, 4, 4), dtype=np.uint8)):
            Image.fromarray(picture).save(tmp_path / name / f"{i:02}.png")
    monkeypatch.chdir(tmp_path)
    known = {"X": rng.normal(size=(100, 2)), "X_new": rng.normal(size=(5, 2))}
    exec(compile(code, f"README.md, block {number}", "exec"), known)


COMMANDS = [
    line
    for page in ("README.md", "docs/performance.md", "benchmarks/README.md", "examples/README.md")
    for block in blocks(page, "sh")
    for line in block.splitlines()
    if line.startswith("liouville ")
]


def test_pages_show_commands():
    assert len(COMMANDS) >= 5


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_of_the_pages_have_their_arguments(line):
    _, name, *arguments = shlex.split(line, comments=True)
    group = typer.main.get_command(app)
    command = group.commands[name]
    if "--help" not in arguments:
        context = command.make_context(name, list(arguments))
        assert context.params


def test_commands_that_are_not_there_are_found():
    command = typer.main.get_command(app).commands["fit"]
    with pytest.raises(Exception, match="No such option"):
        command.make_context("fit", ["table.csv", "-o", "model", "--colour", "red"])


@pytest.mark.parametrize("name", SKELETONS)
def test_the_examples_of_the_skeletons_run(name):
    result = doctest.testmod(skeleton(name))
    assert result.failed == 0 and result.attempted > 0


ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "founding_works.md").read_text()
PLACES = sorted(set(re.findall("`([^`]+)`", PAGE)))


def place(name: str) -> bool:
    """Return True where a place that a page names is there: a file, a recipe, or what Python finds by its full name."""
    if "/" in name:
        return (ROOT / name).exists()
    if name.startswith("recipe="):
        return name.split('"')[1] in {**RECIPES, **IMAGE_RECIPES}
    if not name.startswith("liouville."):
        # A parameter, which the text beside it explains.
        return name.split("=")[0] in {"base", "conditioning", "preprocess", "time"}
    return pydoc.locate(name) is not None


@pytest.mark.parametrize("name", PLACES)
def test_what_the_founding_works_describe_is_there(name):
    assert place(name), name


def test_the_founding_works_have_their_lines():
    assert len(re.findall(r"^\| .* \|$", PAGE, re.MULTILINE)) - 5 >= 100
    assert not place("liouville.bijections.Coupling") and not place('recipe="maf"') and not place("examples/99.py")
