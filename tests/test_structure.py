"""The shape of the code itself: import direction, sizes, what an import costs, docstrings that run."""

import ast
import doctest
import importlib
import inspect
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

import liouville

SOURCE = Path(liouville.__file__).parent
# Each may import what is before it, never what is behind. Names on one line are one layer.
LAYERS = (
    ("_errors", "_files", "_types", "_activations", "_operations", "_copies"),
    ("vector_fields",),
    ("divergences", "regularizers"),
    ("integrate",),
    ("bijections",),
    ("distributions", "augmented"),
    ("dequantization",),
    ("paths", "couplings", "diagnostics"),
    ("objectives", "penalties", "variational", "bespoke"),
    ("checkpoint", "sharding", "_training_data"),
    ("training", "evaluation"),
    ("preprocessing",),
    ("flows", "selection", "data", "metrics"),
    ("_defaults", "_image_defaults", "_progress", "_tables", "_splits", "_fitting"),
    ("_model_file",),
    ("estimators", "image_density", "plots", "callbacks", "report"),
    ("cli", "__main__"),
)
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
FILES = sorted(SOURCE.rglob("*.py"))


def module_of(path: Path) -> str:
    """Return the name of the top-level module that a file belongs to."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_modules(path: Path) -> set[str]:
    """Return the top-level modules of the package that a file imports, inside functions too."""
    package, found = ["liouville", *path.relative_to(SOURCE).parts[:-1]], set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            full = [*base, *(node.module.split(".") if node.module else [])]
            names = [[*full, alias.name] for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        else:
            continue
        found |= {name[1] for name in names if name[0] == "liouville" and len(name) > 1}
    return (found & set(RANK)) - {module_of(path)}


def functions(path: Path):
    return [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]


def body_lines(function) -> int:
    """Return the number of lines of a function's body, its docstring left out."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def test_imports_point_one_way():
    wrong = [
        f"{path.relative_to(SOURCE)} imports {name}"
        for path in FILES
        if path.parent != SOURCE or path.name != "__init__.py"
        for name in imported_modules(path)
        if RANK[name] > RANK[module_of(path)]
    ]
    assert not wrong


def test_every_module_has_a_layer():
    assert {module_of(path) for path in FILES} - {"__init__"} <= set(RANK)


def test_files_and_functions_are_short():
    long_files = [path.name for path in FILES if len(path.read_text().splitlines()) > 500]
    sizes = {f"{path.name}:{f.name}": body_lines(f) for path in FILES for f in functions(path)}
    assert not long_files
    assert not [name for name, size in sizes.items() if size > 80]
    assert statistics.median(sizes.values()) <= 10


def test_the_ode_is_solved_in_one_place():
    calls = [
        path.name
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "diffeqsolve"
    ]
    assert calls == ["integrate.py"]


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_import_is_light_and_changes_no_setting():
    heavy = ("sklearn", "matplotlib", "typer", "pyarrow")
    loaded = f"[name for name in {heavy} if name in sys.modules]"
    settings = "{name: value for name, value in jax.config.values.items()}"
    unchanged = f"before == {settings}, jax.config.jax_enable_x64"
    code = f"import sys, jax; before = {settings}; import liouville; print({loaded}, {unchanged})"
    assert run_python(code) == "[] True False"


def test_import_takes_less_than_a_second_beyond_jax():
    code = "import time, jax; start = time.perf_counter(); import liouville; print(time.perf_counter() - start)"
    assert min(float(run_python(code)) for _ in range(3)) < 1.0


def test_nothing_runs_on_a_device_at_import():
    """Modules are imported before a backend is chosen: importing them must not choose one."""
    names = [name for name in strict_modules()]
    code = (
        f"import importlib; [importlib.import_module(name) for name in {names}]; "
        "from jax._src import xla_bridge; print(xla_bridge.backends_are_initialized())"
    )
    assert run_python(code) == "False"


def strict_modules() -> list[str]:
    """Return the public modules of the strict layer that are there."""
    last = RANK["preprocessing"]
    return [f"liouville.{name}" for name, rank in RANK.items() if rank <= last and not name.startswith("_")]


@pytest.mark.parametrize("name", strict_modules())
def test_public_names_are_documented(name):
    module = importlib.import_module(name)
    assert module.__doc__
    for public, value in vars(module).items():
        own = getattr(value, "__module__", "").startswith(name)
        if public.startswith("_") or not own or not (inspect.isclass(value) or inspect.isfunction(value)):
            continue
        assert value.__doc__, f"{public} has no docstring"
        if inspect.isclass(value):
            methods = {n: m for n, m in vars(value).items() if not n.startswith("_") and inspect.isfunction(m)}
            # A method that overrides a documented one may leave its words to it.
            undocumented = [n for n in methods if not inspect.getdoc(getattr(value, n))]
            assert not undocumented, f"{public}: {undocumented}"


def doctest_modules() -> list[str]:
    parts = [path.relative_to(SOURCE.parent).with_suffix("").parts for path in FILES]
    names = [".".join(p).removesuffix(".__init__") for p in parts]
    return [n for n in names if n.split(".")[1:] and RANK.get(n.split(".")[1], 99) <= RANK["preprocessing"]]


@pytest.mark.parametrize("name", doctest_modules())
def test_examples_in_docstrings_run(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_public_recipes_show_an_example():
    """The classes that a reader meets first are shown at work."""
    names = {
        "vector_fields": ["MLP", "ConcatSquash"],
        "bijections": ["CNF", "Standardize", "Whiten"],
        "distributions": ["Normal"],
    }
    for module, classes in names.items():
        for cls in classes:
            assert ">>>" in getattr(importlib.import_module(f"liouville.{module}"), cls).__doc__
