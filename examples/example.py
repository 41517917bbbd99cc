"""What the examples share: a clock, figures that are printed and kept, and pictures."""

import argparse
import json
import os
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")


class Example:
    """One run of an example.

    Parameters
    ----------
    name
        The script's name without its ending: what its files are called.
    title
        What is shown, in a few words.
    paper
        Whose work it is: authors, title, year.
    published
        The figure that was published for it, or ``"-"``.
    data
        Name of data that are read only where ``--NAME FOLDER`` says where they are, or None.

    Notes
    -----
    ``--fast`` runs a small version, for tests; ``--output`` names the folder for figures and pictures.
    """

    def __init__(self, name: str, title: str, paper: str, published: str = "-", data: str | None = None):
        parser = argparse.ArgumentParser(description=f"{title} ({paper}).")
        parser.add_argument("--fast", action="store_true", help="a small version, which shows that all runs")
        parser.add_argument("--output", type=Path, default=Path(__file__).parent / "output", metavar="FOLDER")
        if data is not None:
            parser.add_argument(f"--{data}", type=Path, dest="data", metavar="FOLDER", help=f"also {data}, from there")
        arguments = parser.parse_args()
        self.data: Path | None = getattr(arguments, "data", None)
        self.fast, self.folder = arguments.fast, arguments.output
        self.folder.mkdir(parents=True, exist_ok=True)
        self.facts = {"name": name, "title": title, "paper": paper, "published": published}
        self.figures, self.pictures, self.start = {}, [], time.perf_counter()

    def size(self, full: int, fast: int) -> int:
        """Return a number of steps, rows or the like: `fast` under ``--fast``, else `full`."""
        return fast if self.fast else full

    def figure(self, label: str, value: float | str, digits: int = 4) -> None:
        """Print a figure and keep it for the table of all examples."""
        text = value if isinstance(value, str) else f"{value:.{digits}f}"
        self.figures[label] = text
        print(f"{label}: {text}", flush=True)

    def picture(self, figure, name: str) -> None:
        """Write a Matplotlib figure as ``<example>_<name>.png``."""
        path = self.folder / f"{self.facts['name']}_{name}.png"
        figure.savefig(path, dpi=110, bbox_inches="tight")
        self.pictures.append(path.name)

    def end(self) -> None:
        """Write what was found, under a temporary name first."""
        seconds = time.perf_counter() - self.start
        print(f"seconds: {seconds:.0f}")
        found = {**self.facts, "figures": self.figures, "pictures": self.pictures, "seconds": seconds}
        path = self.folder / f"{self.facts['name']}.json"
        temporary = path.with_suffix(".json.part")
        temporary.write_text(json.dumps(found, indent=1))
        os.replace(temporary, path)
