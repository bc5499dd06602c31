"""The package as a user gets it: what it holds, what it asks for, what it costs to import, how it is set up."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from DiffusionMBIRLib import models
from DiffusionMBIRLib.version import __version__

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
BUNDLED = ("Calibrations", "Models", "Presets", "SampleData")
MODULES = sorted((ROOT / "DiffusionMBIRLib").rglob("*.py"))


def python(code: str, *, path: Path | None = None, folder: Path = ROOT) -> str:
    """What a fresh interpreter prints for ``code``, with ``path`` before everything else that it imports from."""
    environment = {**os.environ, "PYTHONPATH": str(path or ROOT)}
    answer = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.strip()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """A wheel, built as pip would build it but without fetching the build tool."""
    folder = tmp_path_factory.mktemp("wheel")
    build = f"from hatchling.build import build_wheel; print(build_wheel({str(folder)!r}))"
    name = python(build).splitlines()[-1]
    return zipfile.ZipFile(folder / name)


@pytest.mark.parametrize("module", ["DiffusionMBIRLib", "DiffusionMBIRLib.models", "DiffusionMBIRLib.geometry"])
def test_import_costs_no_torch(module):
    loaded = python(f"import sys, {module}; print(*sorted(m for m in sys.modules if '.' not in m))").split()
    assert "DiffusionMBIRLib" in loaded
    assert not {"torch", "SimpleITK", "matplotlib"} & set(loaded)


def test_wheel_holds_every_module_and_every_bundled_file(wheel):
    expected = {"DiffusionMBIRLib/py.typed"} | {path.relative_to(ROOT).as_posix() for path in MODULES}
    expected |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "DiffusionMBIRLib" / "page").glob("*.html")}
    for folder in BUNDLED:
        files = [path for path in (ROOT / "Resources" / folder).rglob("*") if path.is_file()]
        assert files, f"Resources/{folder} is empty"
        expected |= {"DiffusionMBIRLib/" + path.relative_to(ROOT).as_posix() for path in files}
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert held == expected


def test_wheel_finds_its_own_resources(wheel, tmp_path):
    site = tmp_path / "site"
    wheel.extractall(site)
    show = "from DiffusionMBIRLib import models; print(models.resources())"
    assert Path(python(show, path=site, folder=tmp_path)) == (site / "DiffusionMBIRLib" / "Resources").resolve()


def test_wheel_carries_licence_version_and_command(wheel):
    info = f"diffusionmbir-{__version__}.dist-info"
    assert f"\nVersion: {__version__}\n" in wheel.read(f"{info}/METADATA").decode()
    assert b"Apache License" in wheel.read(f"{info}/licenses/LICENSE.txt")
    assert "diffusionmbir = DiffusionMBIRLib.__main__:main" in wheel.read(f"{info}/entry_points.txt").decode()


def test_command_leads_to_a_function():
    module, name = PROJECT["scripts"]["diffusionmbir"].split(":")
    assert python(f"import {module}; print(callable({module}.{name}))") == "True"


def test_checkout_finds_its_resources():
    assert models.resources() == ROOT / "Resources"
    assert all((ROOT / "Resources" / folder).is_dir() for folder in BUNDLED)


@pytest.mark.parametrize(
    ("name", "pattern"), [("CITATION.cff", r"(?m)^version: (\S+)$"), ("CHANGELOG.md", r"(?m)^## (\d+\.\d+\.\d+)")]
)
def test_documents_name_the_same_version(name, pattern):
    found = re.search(pattern, (ROOT / name).read_text(encoding="utf-8"))
    assert found is not None
    assert found[1] == __version__


def requirements(entries: list[str]) -> set[str]:
    """Distribution names, lower case with hyphens."""
    return {re.split(r"[\s<>=!~;\[]", entry, maxsplit=1)[0].lower().replace("_", "-") for entry in entries}


def imports(path: Path) -> set[str]:
    """Top-level names of the absolute imports anywhere in a module."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(str(node.module).split(".")[0])
    return names


def test_every_import_is_a_declared_dependency():
    declared = requirements(PROJECT["dependencies"])
    for extra in ("report", "mri", "pulseq", "cone", "ct", "bench", "web"):
        declared |= requirements(PROJECT["optional-dependencies"][extra])
    own = {"DiffusionMBIRLib", *sys.stdlib_module_names, "tomllib", "triton"}  # which comes with torch for CUDA
    distribution = {"astra": "astra-toolbox", "itk": "itk-rtk", "vtkmodules": "vtk", "trame_slicer": "trame-slicer"}
    undeclared = {}
    for path in MODULES:
        names = {name for name in imports(path) - own if distribution.get(name, name).lower() not in declared}
        if names:
            undeclared[path.name] = names
    assert not undeclared


def test_no_dependency_is_pinned():
    for entry in PROJECT["dependencies"]:
        assert re.search(r">=\d", entry), f"{entry} has no lower bound"
        assert not re.search(r"[<~]=?\d|===?\s*\d", entry), f"{entry} is held back"


@pytest.mark.parametrize("path", sorted((ROOT / "Testing").glob("*/test_*.py")), ids=lambda path: path.stem)
def test_the_fast_tier_has_tests_of_every_part(path):
    tests = [node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)]
    slow = "pytest.mark.slow"
    assert any(test.name.startswith("test_") and slow not in map(ast.unparse, test.decorator_list) for test in tests), (
        f"every test of {path.name} is marked {slow}: make test-fast leaves it out"
    )


@pytest.fixture(scope="module")
def set_up() -> ModuleType:
    """Utilities/set_up.py as a module."""
    spec = importlib.util.spec_from_file_location("set_up", ROOT / "Utilities" / "set_up.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def fake_smi(folder: Path, text: str, status: int) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho '{text}'\nexit {status}\n", encoding="utf-8")
    program.chmod(0o755)


@pytest.mark.skipif(os.name == "nt", reason="stands a shell script in for nvidia-smi")
@pytest.mark.parametrize(
    ("text", "status", "expected"), [("GPU 0: H", 0, True), ("No devices were found", 0, False), ("GPU 0: H", 9, False)]
)
def test_gpu_is_what_nvidia_smi_lists(set_up, monkeypatch, tmp_path, text, status, expected):
    fake_smi(tmp_path, text, status)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert set_up.has_nvidia_gpu() is expected


def test_gpu_without_nvidia_smi_is_what_the_driver_lists(set_up, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", "")
    assert not set_up.has_nvidia_gpu(str(tmp_path / "*"))
    (tmp_path / "0000:01:00.0").mkdir()
    assert set_up.has_nvidia_gpu(str(tmp_path / "*"))


def test_oldest_python_is_the_one_declared(set_up, monkeypatch):
    assert PROJECT["requires-python"] == ">=" + ".".join(map(str, set_up.OLDEST_PYTHON))
    assert set_up.missing() == ""
    monkeypatch.setattr(sys, "version_info", (3, 9, 18))
    assert "PYTHON=" in set_up.missing()


def test_missing_venv_module_is_named_with_the_remedy(set_up, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ensurepip" else name)
    assert "apt install python3-venv" in set_up.missing()


@pytest.fixture
def environment(set_up, monkeypatch, tmp_path):
    """An environment whose commands are noted in ``.commands`` instead of run."""
    made = set_up.Environment(tmp_path / "a folder" / ".venv")
    made.commands = []

    def run(command):
        made.commands.append(command)
        made.python.parent.mkdir(parents=True, exist_ok=True)
        made.python.touch()

    monkeypatch.setattr(set_up, "run", run)
    monkeypatch.setattr(set_up, "torch_found", lambda path: "0 for the CPU")
    return made


def test_second_set_up_does_nothing(environment):
    assert environment.ensure(["test"], "cpu")
    assert [command[2] for command in environment.commands] == ["venv", "pip"]
    assert any("constraints-cpu.txt" in word for word in environment.commands[1])
    assert not environment.ensure(["test"])
    assert len(environment.commands) == 2


def test_further_extras_are_added_to_those_at_hand(environment):
    environment.ensure(["test"], "cpu")
    assert environment.ensure(["dev"])
    assert environment.commands[2][2] == "pip"
    assert environment.commands[2][-1] == ".[dev,test]"
    assert not environment.ensure(["test"])


def test_changed_requirements_are_installed(environment, set_up, monkeypatch):
    environment.ensure([], "cpu")
    monkeypatch.setattr(set_up, "fingerprint", lambda paths: "changed")
    assert environment.ensure([])
    assert [command[2] for command in environment.commands] == ["venv", "pip", "pip"]


def test_interrupted_set_up_begins_anew(environment, set_up, monkeypatch):
    leftover = environment.folder / "lib" / "half-written"
    complete_run = set_up.run

    def run(command):
        complete_run(command)
        if command[2] == "pip":
            leftover.mkdir(parents=True)
            raise KeyboardInterrupt

    monkeypatch.setattr(set_up, "run", run)
    with pytest.raises(KeyboardInterrupt):
        environment.ensure([], "cpu")
    monkeypatch.setattr(set_up, "run", complete_run)
    assert environment.ensure([], "cpu")
    assert not leftover.exists()
    assert [command[2] for command in environment.commands] == ["venv", "pip"] * 2


def test_cuda_build_is_not_held_to_the_cpu_version(environment):
    environment.ensure([], "cuda", "a/folder/of/builds")
    words = environment.commands[1]
    assert not any("constraints-cpu.txt" in word for word in words)
    assert words[words.index("--extra-index-url") + 1] == "a/folder/of/builds"
    assert environment.ensure([], "cpu")
    assert environment.commands[2][2] == "venv"


def test_foreign_environment_is_left_alone(environment, set_up):
    environment.folder.mkdir(parents=True)
    (environment.folder / "pyvenv.cfg").write_text("home = elsewhere\n", encoding="utf-8")
    with pytest.raises(set_up.SetUpError, match="VENV="):
        environment.ensure([], "cpu")
    assert (environment.folder / "pyvenv.cfg").exists()
    assert not environment.commands
