"""The extension as Slicer builds, finds and loads it: from a checkout and installed, whichever Slicer it is."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import slicer

from DiffusionMBIRLib.models import sha256

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "DiffusionMBIR"
STAND_IN = Path(__file__).resolve().parent / "host" / "cmake"
CMAKE = shutil.which("cmake")
SHARED = ("Calibrations/*", "Icons/*.png", "Models/*", "Presets/*.toml", "SampleData/*", "UI/*.ui", "requirements.txt")


def python_files(folder: Path) -> set[str]:
    return {path.relative_to(folder.parent).as_posix() for path in folder.rglob("*.py")}


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder that the extension's own CMake rules fill."""
    if CMAKE is None:
        pytest.skip("cmake is not installed")
    build = tmp_path_factory.mktemp("build")
    command = [CMAKE, "-S", str(ROOT), "-B", str(build), f"-DSlicer_DIR={STAND_IN}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for name in ("DiffusionMBIR.py", "DiffusionMBIRPanelTest.py"):
        assert f"unit test: {name}" in done.stdout
    return build / "lib" / "qt-scripted-modules"


def test_everything_is_installed_beside_the_module(installed):
    expected = (
        {"DiffusionMBIR.py"} | python_files(MODULE / "DiffusionMBIRGui") | python_files(ROOT / "DiffusionMBIRLib")
    )
    expected |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "DiffusionMBIRLib" / "page").glob("*.html")}
    for pattern in SHARED:
        found = [path for path in (ROOT / "Resources").glob(pattern) if path.is_file()]
        assert found, pattern
        expected |= {path.relative_to(ROOT).as_posix() for path in found}
    held = {p.relative_to(installed).as_posix() for p in installed.rglob("*") if p.is_file()}
    assert held == expected


def loaded(folder: Path, *more_paths: Path) -> dict:
    """What a fresh Python finds that loads the module from ``folder`` as Slicer does."""
    code = f"""
import json, sys, slicer
sys.path[:0] = {[str(ROOT), str(folder)]!r}
from Testing.slicer.host import module_base
import qt
# The module must find the engine by itself.
sys.path = [p for p in sys.path if p not in {["", str(ROOT), str(MODULE), str(folder)]!r}] + [{str(folder)!r}]
from pathlib import Path
with module_base.application(slicer.vtkMRMLScene()):
    module = module_base.load_module(Path({str(folder)!r}) / "DiffusionMBIR.py")
    import DiffusionMBIRGui, DiffusionMBIRLib
    from DiffusionMBIRGui.parameters import Parameters
    from DiffusionMBIRGui.panel_data import SAMPLES
    found = [module.resource("UI/DiffusionMBIR.ui"), module.resource("Icons/DiffusionMBIR.png"), SAMPLES[0].path()]
    heavy = [m for m in ("torch", "h5py", "SimpleITK") if m in sys.modules]
    print(json.dumps([str(DiffusionMBIRLib.__file__), str(DiffusionMBIRGui.__file__), *map(str, found), heavy]))
"""
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    names = ("engine", "gui", "ui", "icon", "sample", "heavy")
    return dict(zip(names, json.loads(done.stdout.splitlines()[-1]), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["checkout", "installed"])
def test_module_loads_and_finds_its_files_in_both_layouts(layout, request):
    pytest.importorskip("PySide6")
    if layout == "checkout":
        folder, top = MODULE, ROOT
    else:
        folder = top = request.getfixturevalue("installed")
    found = loaded(folder)
    assert found["engine"] == str(top / "DiffusionMBIRLib" / "__init__.py")
    assert found["gui"] == str(folder / "DiffusionMBIRGui" / "__init__.py")
    assert found["ui"] == str(top / "Resources" / "UI" / "DiffusionMBIR.ui")
    assert found["icon"] == str(top / "Resources" / "Icons" / "DiffusionMBIR.png")
    assert Path(found["sample"]).is_file()
    assert found["heavy"] == []


def test_module_tells_slicer_what_it_must():
    pytest.importorskip("PySide6")
    from types import SimpleNamespace

    from Testing.slicer.host import module_base

    with module_base.application(slicer.vtkMRMLScene()) as app:
        module = module_base.load_module(MODULE / "DiffusionMBIR.py")
        parent = SimpleNamespace(path=str(MODULE / "DiffusionMBIR.py"))
        qt_application()
        module.DiffusionMBIR(parent)
    assert parent.categories == ["Tomographic Reconstruction"]
    assert len(parent.acknowledgementText) > 100
    assert "Research use only, not for diagnosis." in parent.helpText
    assert parent.contributors
    assert app.connected == ["startupCompleted()"]


def qt_application():
    import qt

    return qt.QApplication.instance() or qt.QApplication([])


def test_widget_opens_leaves_and_cleans_up_with_its_scene(monkeypatch):
    pytest.importorskip("PySide6")
    from Testing.slicer.host import module_base
    from Testing.slicer.host.played import PlayedDesktop, PlayedRunner, wait_for

    application = qt_application()
    scene = slicer.vtkMRMLScene()
    with module_base.application(scene):
        module = module_base.load_module(MODULE / "DiffusionMBIR.py")
        runner = PlayedRunner()
        monkeypatch.setattr(module.DiffusionMBIRLogic, "runner", lambda self, scene: runner)
        import DiffusionMBIRGui.panel_desktop as panel_desktop

        monkeypatch.setattr(panel_desktop, "SlicerDesktop", lambda: PlayedDesktop(Path()))
        widget = module.DiffusionMBIRWidget()
        widget.setup()
        widget.enter()
        wait_for(lambda: widget.panel.setup.report is not None, application)
        widget.panel.parameters.set("views", 50)
        scene.Clear(0)
        assert runner.calls == ["close"]
        assert widget.panel.form.views.property("value") == 8
        widget.exit()
        widget.cleanup()
        assert widget.panel is None
        scene.Clear(0)


def test_nothing_heavy_or_foreign_is_imported_at_file_scope():
    known = {"slicer", "vtk", "qt", "ctk", "numpy", "DiffusionMBIRGui", "DiffusionMBIRLib", *sys.stdlib_module_names}
    for path in [MODULE / "DiffusionMBIR.py", *(MODULE / "DiffusionMBIRGui").glob("*.py")]:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            assert {name.split(".")[0] for name in names} <= known, path.name


def test_catalogue_entry_and_project_agree():
    entry = json.loads((ROOT / "DiffusionMBIR.json").read_text(encoding="utf-8"))
    cmake = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    assert re.search(r"^project\((\w+)\)$", cmake, re.M).group(1) == "DiffusionMBIR"
    assert entry["$schema"].endswith("slicer-extension-catalog-entry-schema-v1.0.1.json#")
    assert entry["category"] == re.search(r'EXTENSION_CATEGORY "(.+)"', cmake).group(1) == "Tomographic Reconstruction"
    assert entry["build_dependencies"] == []
    assert set(entry) == {
        "$schema", "build_dependencies", "build_subdirectory", "category", "scm_revision", "scm_url", "tier",
    }  # fmt: skip
    least = re.search(r"cmake_minimum_required\(VERSION ([\d.]+)\.\.\.([\d.]+)", cmake)
    assert least.groups() == ("3.20.6", "3.28.0")


def test_icon_is_a_square_of_128_pixels():
    head = (ROOT / "Resources" / "Icons" / "DiffusionMBIR.png").read_bytes()[:24]
    assert head[1:4] == b"PNG"
    assert struct.unpack(">II", head[16:24]) == (128, 128)


def test_sample_is_registered_with_the_digest_of_its_file():
    from DiffusionMBIRGui.panel_data import SAMPLES

    for sample in SAMPLES:
        assert sha256(sample.path()) == sample.sha256
        assert sample.path().as_uri().startswith("file://")


def test_text_files_end_their_lines_as_the_catalogue_asks():
    for path in [ROOT / "DiffusionMBIR.json", ROOT / "CMakeLists.txt", *MODULE.rglob("*.py"), *MODULE.rglob("*.txt")]:
        assert b"\r" not in path.read_bytes(), path
