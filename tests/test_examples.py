"""Every example runs, in its fast version, and leaves its figures and pictures."""

import json
import runpy
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("[0-9]*.py"))


@pytest.mark.parametrize("script", EXAMPLES, ids=[script.stem for script in EXAMPLES])
def test_an_example_runs(script, tmp_path, monkeypatch):
    # In this process, not in one of its own: what several examples compile is compiled once.
    monkeypatch.setattr(sys, "argv", [str(script), "--fast", "--output", str(tmp_path)])
    monkeypatch.syspath_prepend(str(script.parent))
    runpy.run_path(str(script), run_name="__main__")
    plt.close("all")
    found = json.loads((tmp_path / f"{script.stem}.json").read_text())
    assert found["figures"] and "nan" not in found["figures"].values()
    for name in found["pictures"]:
        assert (tmp_path / name).stat().st_size > 1000
    assert len(script.read_text().splitlines()) <= 150
