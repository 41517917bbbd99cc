"""Every example runs, in its fast version, and leaves its figures and pictures."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

# Each takes a quarter of a minute and more, most of it in compiling what is its own.
pytestmark = pytest.mark.slow

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("[0-9]*.py"))


@pytest.mark.parametrize("script", EXAMPLES, ids=[script.stem for script in EXAMPLES])
def test_an_example_runs(script, tmp_path):
    command = [sys.executable, str(script), "--fast", "--output", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    found = json.loads((tmp_path / f"{script.stem}.json").read_text())
    assert found["figures"] and "nan" not in found["figures"].values()
    for name in found["pictures"]:
        assert (tmp_path / name).stat().st_size > 1000
    assert len(script.read_text().splitlines()) <= 150
