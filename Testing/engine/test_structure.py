"""How the code is built: no circle of imports, no long file, no name with two meanings, no torch where none is due."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from Testing.engine.helpers import ROOT

PACKAGES = (ROOT / "DiffusionMBIRLib", ROOT / "DiffusionMBIR" / "DiffusionMBIRGui")
MOST_LINES, MOST_LINES_OF_TESTS = 400, 450


def modules() -> dict[str, Path]:
    """Every module of the engine and of the panel by its name."""
    found = {"DiffusionMBIR": ROOT / "DiffusionMBIR" / "DiffusionMBIR.py"}
    for package in PACKAGES:
        for path in sorted(package.rglob("*.py")):
            found[".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__")] = path
    return found


MODULES = modules()
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


# --- imports


def imports_of(name: str, tree: ast.AST, known: set[str], *, is_package: bool) -> set[str]:
    """The modules among ``known`` that one imports anywhere, also within functions, but not for type checkers alone."""
    found: set[str] = set()
    here = name.split(".") if is_package else name.split(".")[:-1]
    for node in _running(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = here[: len(here) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                found.add(inner if inner in known else base)
    return (found & known) - {name}


def _running(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    checked = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    for child in node.orelse if checked and isinstance(node, ast.If) else ast.iter_child_nodes(node):
        yield from _running(child)


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that all lead to each other (Tarjan 1972)."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        order[name] = lowest[name] = len(order)
        stack.append(name)
        for other in sorted(graph[name]):
            if other not in order:
                visit(other)
                lowest[name] = min(lowest[name], lowest[other])
            elif other in stack:
                lowest[name] = min(lowest[name], order[other])
        if lowest[name] == order[name]:
            group = [stack.pop()]
            while group[-1] != name:
                group.append(stack.pop())
            if len(group) > 1:
                found.append(sorted(group))

    for name in graph:
        if name not in order:
            visit(name)
    return found


def test_no_circle_of_imports():
    known = set(MODULES)
    graph = {
        name: imports_of(name, tree, known, is_package=MODULES[name].name == "__init__.py")
        for name, tree in TREES.items()
    }
    assert sum(map(len, graph.values())) > 300  # the imports are seen at all
    assert circles(graph) == []


def test_circles_are_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a", "d"}}) == [["b", "c"]]
    text = "if TYPE_CHECKING:\n    from . import a\nelse:\n    import x\n"
    text += "def f():\n    from .b import c\n    from ..q import r"
    known = {"p.a", "p.b", "x", "q", "q.r"}
    assert imports_of("p.m", ast.parse(text), known, is_package=False) == {"p.b", "x"} | {"q.r"}
    assert imports_of("p.m", ast.parse("from .a import b"), {"p.m.a", "p.a"}, is_package=True) == {"p.m.a"}


LIGHT = (
    "DiffusionMBIRLib", "DiffusionMBIRLib.config", "DiffusionMBIRLib.methods", "DiffusionMBIRLib.geometry",
    "DiffusionMBIRLib.scans", "DiffusionMBIRLib.formats", "DiffusionMBIRLib.simulation", "DiffusionMBIRLib.estimate",
    "DiffusionMBIRLib.cli", "DiffusionMBIRLib.models", "DiffusionMBIRLib.jobs.asking", "DiffusionMBIRLib.jobs.client",
)  # fmt: skip


def test_what_the_panel_and_the_command_line_import_costs_no_torch():
    """One process for all: what one of them loads would be seen after it."""
    heavy = "{'torch', 'SimpleITK', 'matplotlib', 'scipy'}"
    code = f"import sys\nfor name in {LIGHT!r}:\n    __import__(name)\n    print(name, *{heavy} & set(sys.modules))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split("\n")[:-1] == list(LIGHT)


# --- sizes


def code_files() -> list[Path]:
    return [*MODULES.values(), *sorted((ROOT / "Utilities").glob("*.py"))]


def test_files_are_of_one_idea_each():
    long = {str(path.relative_to(ROOT)): _lines(path) for path in code_files() if _lines(path) > MOST_LINES}
    assert long == {}


def test_tests_are_of_one_subject_each():
    tests = (path for folder in ("engine", "slicer") for path in (ROOT / "Testing" / folder).rglob("*.py"))
    long = {path.name for path in tests if _lines(path) > MOST_LINES_OF_TESTS}
    assert long == set()


def _lines(path: Path) -> int:
    return path.read_text(encoding="utf-8").count("\n")


# --- names

SHARED = {
    "Engine": "where a job is computed; the Python that the panel starts",
    "add_options": "of a verb of the command line",
    "run": "of a verb of the command line",
    "main": "of a program",
    "sample": "of a sampler; of a volume node",
    "scan": "simulated, of a kind of volume",
    "infer_config": "of a published architecture",
    "project": "cone beams, with a kernel",
    "back_project": "cone beams, with a kernel",
    "Attention": "of an architecture",
    "ResidualBlock": "of an architecture",
    "Stage": "of an architecture",
    "opened": "a file of a container format",
    "require_sound": "a volume file of a format",
    "grid_of": "an image of SimpleITK; a node",
    "patient_of": "a training volume; a node",
    "duration": "for the command line; for the panel, translated",
    "reconstruct": "from Python; from Slicer's Python",
}


def names_in(tree: ast.Module) -> set[str]:
    """The public classes and functions of a module."""
    kinds = (ast.ClassDef, ast.FunctionDef)
    return {node.name for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")}


def test_a_name_has_one_meaning():
    """A class or function whose name stands in two modules is listed here with what both have in common."""
    where = defaultdict(list)
    for module, tree in TREES.items():
        for name in names_in(tree):
            where[name].append(module)
    twice = {name: sorted(found) for name, found in where.items() if len(found) > 1}
    assert {name: found for name, found in twice.items() if name not in SHARED} == {}
    assert set(SHARED) <= set(twice), "a name that is shared no more can leave the list"


@pytest.mark.parametrize("text", ["class A:\n    pass", "def A():\n    pass"])
def test_public_names_are_seen(text):
    assert names_in(ast.parse(f"{text}\ndef _hidden():\n    pass")) == {"A"}
