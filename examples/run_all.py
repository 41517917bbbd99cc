"""Run every example, one after the other, and make README.md anew from what they found.

Usage: python examples/run_all.py [NAME ...]; names choose examples, all figures at hand go into the table.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
OUTPUT = FOLDER / "output"
HEAD = """# Examples

Each is a script that runs as it stands, for example `python examples/{first}.py`; `--fast` runs a small version.
`make examples` runs them all, one after the other, and writes this page; what has not been run yet is not listed. Every
figure was printed by its run, on the machine at hand. NLL is in nats; lower is better.
"""


def examples() -> list[Path]:
    """Return the scripts, in order."""
    return sorted(FOLDER.glob("[0-9]*.py"))


def run(script: Path) -> bool:
    """Run one example; return True where it succeeded."""
    print(f"== {script.name}", flush=True)
    return subprocess.run([sys.executable, str(script)], check=False).returncode == 0


def page(found: list[dict]) -> str:
    """Return the page: a table, and the pictures under it."""
    lines = [HEAD.format(first=found[0]["name"])]
    lines += ["| example | paper | published | seconds |", "|---|---|---|---|"]
    for facts in found:
        anchor = re.sub(r"[^a-z0-9 -]", "", facts["title"].lower()).replace(" ", "-")
        link = f"[{facts['title']}](#{anchor})"
        lines.append(f"| {link} | {facts['paper']} | {facts['published']} | {facts['seconds']:.0f} |")
    lines.append(f"\nIn all {sum(facts['seconds'] for facts in found) / 60:.1f} minutes.\n")
    for facts in found:
        lines += [f"## {facts['title']}\n", f"[{facts['name']}.py]({facts['name']}.py)\n"]
        lines += [f"- {label}: {value}" for label, value in facts["figures"].items()]
        lines += ["", *[f"![{facts['title']}](output/{name})\n" for name in facts["pictures"]]]
    return "\n".join(lines)


def main() -> int:
    """Run, write the page, and return the number of examples that failed."""
    chosen = [script for script in examples() if not sys.argv[1:] or script.stem in sys.argv[1:]]
    failed = [script.name for script in chosen if not run(script)]
    found = [OUTPUT / f"{script.stem}.json" for script in examples()]
    found = [json.loads(path.read_text()) for path in found if path.exists()]
    if found:
        (FOLDER / "README.md").write_text(page(found))
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return len(failed)


if __name__ == "__main__":
    sys.exit(min(main(), 1))
