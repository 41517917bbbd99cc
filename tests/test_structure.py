"""The shape of the code itself: import direction, sizes, what an import costs, docstrings that run."""

import ast
import doctest
import graphlib
import importlib
import inspect
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

import liouville

SOURCE = Path(liouville.__file__).parent
# Each may import what is before it, never what is behind. Names on one line are one layer.
LAYERS = (
    ("_errors", "_files", "_types", "_draws", "_activations", "_operations", "_copies", "_chunks", "_gaps", "_version"),
    ("vector_fields",),
    ("divergences", "regularizers"),
    ("integrate",),
    ("bijections",),
    ("distributions",),
    ("dequantization", "front"),
    ("frames",),
    ("density",),
    ("paths", "couplings"),
    ("objectives", "bespoke"),
    ("mixed",),
    ("checkpoint", "sharding", "_training_data", "_budget"),
    ("training", "evaluation"),
    ("papers",),
    ("flows", "_conditions", "_laws", "_splits", "data", "metrics"),
    ("recipes", "selection", "_noise_levels"),
    ("_defaults", "_image_defaults", "_progress", "_dependence", "_tables", "_targets", "_conditionals", "_fitting"),
    ("_model_file",),
    ("_fitted",),
    ("_estimator",),
    (
        "estimators",
        "conditional_density",
        "image_density",
        "outliers",
        "calibration",
        "_axes",
        "_mixed_plots",
        "_corner",
        "_conditional_plots",
        "plots",
        "callbacks",
    ),
    ("cli", "__main__"),
)
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
FILES = sorted(SOURCE.rglob("*.py"))


def name_of(path: Path) -> str:
    """Return the name by which a file is imported."""
    return ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__")


NAMES = {name_of(path) for path in FILES}


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


def imported_files(path: Path) -> set[str]:
    """Return the files of the package that a file imports, inside functions too, but not those for types alone."""
    package, tree, found = ["liouville", *path.relative_to(SOURCE).parts[:-1]], ast.parse(path.read_text()), set()
    for_types = [n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    skipped = {id(n) for block in for_types for n in ast.walk(block)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level and id(node) not in skipped:
            base = [*package[: len(package) - node.level + 1], *(node.module.split(".") if node.module else [])]
            for alias in node.names:
                name = ".".join([*base, alias.name])
                found.add(name if name in NAMES else ".".join(base))
    return found - {name_of(path)}


def test_no_file_imports_itself_in_a_circle():
    """Inside folders and inside layers, too."""
    graphlib.TopologicalSorter({name_of(path): imported_files(path) for path in FILES}).prepare()


def test_parts_of_papers_are_known_by_name_alone():
    """The core imports none: they stand in the registries of flows, and in recipes."""
    assert {module_of(path) for path in FILES if "papers" in imported_modules(path)} == {"flows", "recipes"}


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
    last = RANK["papers"]
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


# The file that runs the command line runs it when it is imported.
MODULES = [path for path in FILES if path.stem != "__main__"]


@pytest.mark.parametrize("name", [name_of(path) for path in MODULES if ">>>" in path.read_text()])
def test_examples_in_docstrings_run(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0 and result.attempted > 0


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


CONTRIBUTING = SOURCE.parents[1] / "CONTRIBUTING.md"


def test_the_order_of_imports_is_the_one_that_is_written():
    rule = re.search(r"\*\*Imports point one way\*\*:(.*?): each\s+imports", CONTRIBUTING.read_text(), re.DOTALL)
    written = [re.findall("`(.*?)`", layer) for layer in rule[1].split(";")]
    assert written == [[name for name in layer if not name.startswith("__")] for layer in LAYERS]


def nodes(kind, paths=FILES):
    """Yield each node of a kind, with the place where it is."""
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, kind):
                yield node, f"{path.relative_to(SOURCE)}:{node.lineno}"


ERRORS = "ValueError|TypeError|DataError|CheckpointError|SolveError|FileNotFoundError|ImportError"
# What scikit-learn's checks ask for in its own words, and a message that is put together of several.
OTHER_WORDS = "Reshape your data|Complex data not supported|Training cannot recover"


def test_errors_say_what_was_expected_what_came_and_what_to_try():
    for node, place in nodes(ast.Raise):
        if isinstance(node.exc, ast.Call) and re.fullmatch(rf"(\w+\.)?({ERRORS})", ast.unparse(node.exc.func)):
            parts = [c.value for c in ast.walk(node.exc) if isinstance(c, ast.Constant) and isinstance(c.value, str)]
            # The walk goes by depth, not from left to right: the parts of a message come in any order.
            found = {word for word in ("xpected", "got", " but ", "; try") for part in parts if word in part}
            assert {"xpected", "; try"} < found or re.search(OTHER_WORDS, "".join(parts)), place


def test_nothing_is_asserted_and_the_strict_layer_asks_no_object_what_it_can():
    strict = [path for path in FILES if RANK.get(module_of(path), 99) <= RANK["papers"]]
    assert not [place for _, place in nodes(ast.Assert)]
    assert not [place for call, place in nodes(ast.Call, strict) if ast.unparse(call.func) == "hasattr"]


def test_no_setting_of_jax_is_changed_and_one_rule_tells_parameters():
    used = {(ast.unparse(node).removeprefix("jax."), place) for node, place in nodes(ast.Attribute)}
    assert not [place for name, place in used if name in ("config.update", "config.jax_enable_x64")]
    assert {place.split(":")[0] for name, place in used if name == "eqx.is_inexact_array"} == {"_types.py"}


def test_arguments_come_in_one_order_and_under_one_name():
    order, others = ("t", "x", "z", "condition"), {"func", "trace", "logdet", "ladj", "n_probes", "t_0", "t_1"}
    for function, place in nodes(ast.FunctionDef):
        spec = function.args
        names = [arg.arg for arg in (*spec.posonlyargs, *spec.args, *spec.kwonlyargs) if arg.arg != "self"]
        known = [name for name in names if name in (*order, "key")]
        # Draws are of a key, which comes first; elsewhere it comes last.
        known = known[1:] if known[:1] == ["key"] and names[0] == "key" else known
        assert known == sorted(known, key=(*order, "key").index), place
        assert not others & set(names), place


def test_types_stand_in_signatures_only():
    for node, place in nodes((ast.FunctionDef, ast.ClassDef)):
        section = re.search(r"\nParameters\n-+\n(.*?)(\n\n\w+\n-+\n|\Z)", ast.get_docstring(node) or "", re.DOTALL)
        assert not section or not re.search(r"^\w[\w, ]* : ", section[1], re.MULTILINE), place


def own_classes() -> set[type]:
    values = [value for path in MODULES for value in vars(importlib.import_module(name_of(path))).values()]
    return {value for value in values if inspect.isclass(value) and value.__module__.split(".")[0] == "liouville"}


def own_bases(cls: type) -> list[type]:
    return [base for base in cls.__mro__[1:] if base.__module__.split(".")[0] == "liouville"]


def test_classes_are_abstract_or_final_and_methods_overridden_once():
    for cls in own_classes():
        bases = own_bases(cls)
        assert all(base.__name__.startswith("Abstract") or base.__name__.endswith("Mixin") for base in bases), cls
        for name, method in vars(cls).items():
            # Those of Python are made anew for each module and tuple.
            if inspect.isfunction(method) and not name.startswith("__"):
                written = [vars(base)[name] for base in bases if name in vars(base)]
                assert sum(not getattr(m, "__isabstractmethod__", False) for m in written) <= 1, (cls, name)


def test_there_are_three_errors():
    assert {cls.__name__ for cls in own_classes() if issubclass(cls, BaseException)} == {
        "SolveError", "DataError", "CheckpointError",
        # No error: what ends a training.
        "StopTraining",
    }  # fmt: skip


# What else is mapped is no batch of rows, but probes, draws, tangent vectors or columns of one point.
OF_A_BATCH = {"objectives", "papers", "distributions", "evaluation", "bespoke"}
OF_A_POINT = {"bijections", "density", "divergences", "integrate", "mixed"}


def test_a_batch_is_mapped_over_in_few_places():
    maps = [place for node, place in nodes(ast.Attribute) if node.attr in ("vmap", "filter_vmap", "pmap")]
    assert {module_of(SOURCE / place.split(":")[0]) for place in maps} == OF_A_BATCH | OF_A_POINT
