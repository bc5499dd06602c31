"""The engine's set-up: real Pythons are started, looked at, installed into and ended."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from DiffusionMBIRGui import setup
from DiffusionMBIRGui.setup import Device, Engine, Process, Report
from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.jobs import messages

ROOT = Path(__file__).resolve().parents[2]
HERE = Engine((sys.executable,))


def finish(process: Process, seconds: float = 60) -> list[str]:
    until, lines = time.monotonic() + seconds, []
    while process.running:
        assert time.monotonic() < until
        lines += process.poll()
        time.sleep(0.01)
    return lines


def report_of(engine: Engine) -> Report:
    probe, until = setup.Probe(engine), time.monotonic() + 60
    while (report := probe.poll()) is None:
        assert time.monotonic() < until
        time.sleep(0.01)
    return report


def fake_python(folder: Path, body: str) -> Engine:
    """A program that answers like a Python of another make."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return Engine((str(path),))


def is_alive(pid: int) -> bool:
    """False for a process that is gone, or a zombie that nobody reaps here."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.is_file() and stat.read_text().rsplit(")")[-1].split()[0] == "Z")


@pytest.mark.slow
def test_probe_tells_what_this_python_has_and_lacks():
    report = report_of(HERE)
    assert report.python == ".".join(map(str, sys.version_info[:3]))
    have = subprocess.run([sys.executable, "-c", "import torch, h5py, safetensors, SimpleITK, pydicom"], check=False)
    assert report.ready == (have.returncode == 0)
    if report.ready:
        assert report.device("cpu").total > report.device("cpu").free > 0
    else:
        assert report.lacking
        assert report.lacking[0] in report.line()
        assert "Install" in report.line()


def test_probe_answers_at_once_while_it_looks():
    started = time.thread_time()  # of this thread alone: others may keep the processor busy
    probe = setup.Probe(HERE)
    assert probe.poll() is None
    assert time.thread_time() - started < 0.05
    probe.cancel()


@pytest.mark.parametrize("program", ["echo", "cat", "ls", "bash"])
@pytest.mark.skipif(os.name == "nt", reason="programs of POSIX")
def test_a_program_that_is_no_python_is_called_so(program):
    report = report_of(setup.Engine((shutil.which(program),)))
    assert report.line() == "This program is no Python: choose another one under Set-up."


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("exit 1", "says nothing"),
        ("echo 'Segmentation fault'; exit 139", "Segmentation fault"),
        ("echo '{\"python\": 3}'", "does not work"),
        (
            """echo '{"python": "3.8.1", "torch": "", "devices": [], "lacking": [], "problem": "python"}'""",
            "Python 3.10 or newer is needed; this one is 3.8.1",
        ),
        ("echo warning >&2; echo '[1, 2]'", "does not work"),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="shell scripts")
def test_a_python_that_does_not_work_is_told_in_one_line(tmp_path, body, says):
    report = report_of(fake_python(tmp_path, body))
    assert not report.ready
    assert says in report.line()
    assert "\n" not in report.line()


def test_a_python_that_cannot_be_started_is_told_in_one_line(tmp_path):
    report = report_of(Engine((str(tmp_path / "none"),)))
    assert "does not start" in report.line()


def test_a_torch_that_cannot_be_loaded_is_told_with_its_reason(tmp_path):
    (tmp_path / "torch.py").write_text("raise OSError('libcudart.so.12: cannot open shared object file')")
    (tmp_path / "none.txt").write_text("# nothing is required\n")
    engine = Engine((sys.executable,), {**os.environ, "PYTHONPATH": str(tmp_path)})
    probe = Process(
        [sys.executable, str(setup.HERE / "setup_probe.py"), str(tmp_path / "none.txt")],
        {**engine.variables(), "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
    )
    line = setup.read_report(finish(probe)).line()
    assert line == "torch cannot be loaded: libcudart.so.12: cannot open shared object file"


def test_report_of_a_gpu():
    gpu = Device("cuda:0", "NVIDIA H200", 139_800_000_000, 120_100_000_000)
    report = Report("3.12.10", "2.9.1", (gpu, Device("cpu", "CPU")))
    assert report.line() == "Ready: Python 3.12.10, torch 2.9.1; NVIDIA H200 with 120.1 of 139.8 GB free, CPU"
    assert report.device("auto") is gpu
    assert report.device("cuda") is gpu
    assert report.device("cuda:1") is None
    assert report.device("cpu").title == "CPU"


def test_engine_gets_the_library_first_and_keeps_the_rest_of_its_environment():
    engine = Engine((sys.executable,), {"PYTHONPATH": "/elsewhere", "KEPT": "1", "PATH": os.environ["PATH"]})
    variables = engine.variables()
    assert variables["PYTHONPATH"].split(os.pathsep) == [str(ROOT), "/elsewhere"]
    assert variables["KEPT"] == "1"
    shown = finish(Process([*engine.command, "-c", "import DiffusionMBIRLib as m; print(m.__file__)"], variables))
    assert shown == [str(ROOT / "DiffusionMBIRLib" / "__init__.py")]


def test_other_python_by_program_by_environment_and_by_name(tmp_path):
    assert setup.other_python(sys.executable) == (sys.executable,)
    (tmp_path / "bin").mkdir()
    link = tmp_path / "bin" / "python"
    link.symlink_to(sys.executable)
    assert setup.other_python(str(tmp_path)) == (str(link),)  # the link itself: it is what makes the environment
    with pytest.raises(InputError, match="is not there"):
        setup.other_python(str(tmp_path / "none"))
    with pytest.raises(InputError, match="Name a Python"):
        setup.other_python(" ")
    (tmp_path / "text").write_text("")
    with pytest.raises(InputError, match="is not a program"):
        setup.other_python(str(tmp_path / "text"))


@pytest.mark.skipif(os.name == "nt", reason="process groups")
def test_cancel_ends_a_launcher_with_its_children(tmp_path):
    marker = tmp_path / "child"
    child = f"import os, time; open({str(marker)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    process = Process(
        [sys.executable, "-c", f"import subprocess, sys; subprocess.call([sys.executable, '-c', {child!r}])"],
        dict(os.environ),
    )
    until = time.monotonic() + 60
    while not (marker.is_file() and marker.read_text()):
        assert time.monotonic() < until
        time.sleep(0.02)
    process.cancel()
    finish(process)
    assert process.cancelled
    assert not is_alive(int(marker.read_text()))


@pytest.mark.slow
def test_install_uses_the_engines_pip_and_tells_its_lines():
    process = setup.install(HERE, ["no-such-package-of-diffusionmbir>=1; python_version < '3'"])
    lines = finish(process)
    assert process.returncode == 0
    assert any("Ignoring no-such-package" in line for line in lines)  # pip's own word: the marker rules it out


def test_install_asks_for_something():
    with pytest.raises(InputError):
        setup.install(HERE, [])


def test_install_holds_what_came_with_the_python():
    sys.path.insert(0, str(ROOT / "DiffusionMBIR" / "DiffusionMBIRGui"))
    try:
        import setup_install
    finally:
        sys.path.pop(0)
    import numpy

    assert f"numpy=={numpy.__version__}\n" in setup_install.constraints(set())
    assert not [line for line in setup_install.constraints({"numpy"}) if line.startswith("numpy")]
    assert set(setup.BUILDS) == {"", *setup_install.INDEXES}
    lacking = ["h5py>=3.10", "torch>=2.5"]
    assert setup_install.steps(lacking) == [lacking]
    (torch, rest) = setup_install.steps(lacking, build="cpu")  # torch's own index has only what torch needs
    assert torch == ["torch>=2.5", "--index-url", "https://download.pytorch.org/whl/cpu"]
    assert rest == ["h5py>=3.10"]
    assert setup_install.steps(["h5py"], build="cpu") == [["h5py"]]
    assert setup_install.steps(lacking, wheels="w") == [[*lacking, "--no-index", "--find-links", "w"]]
    assert setup_install.name_of("Typing_Extensions >= 4") == "typing-extensions"


def wheel(folder: Path, name: str, version: str, *needs: str) -> None:
    """A package without content."""
    about = f"{name}-{version}.dist-info"
    lines = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}", *(f"Requires-Dist: {need}" for need in needs)]
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{about}/METADATA", "\n".join(lines) + "\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")


def rehearsed(wheels: Path, *requirements: str) -> tuple[int, str]:
    """What pip's resolver would do in this Python with a folder of wheels: (exit code, what was said)."""
    command = [
        sys.executable,
        str(setup.HERE / "setup_install.py"),
        "--dry-run",
        "--wheels",
        str(wheels),
        *requirements,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_what_would_be_installed_is_resolved_and_what_is_there_stays(tmp_path):
    """pip itself, without network.  A newer numpy lies ready and is not taken."""
    wheel(tmp_path, "mbir_alpha", "2.0", "numpy>=1.26", "mbir_beta>=1")
    wheel(tmp_path, "mbir_beta", "1.5")
    wheel(tmp_path, "mbir_beta", "2.0", "numpy>=99")
    wheel(tmp_path, "numpy", "99.0")
    code, said = rehearsed(tmp_path, "mbir-alpha")
    assert code == 0, said
    assert "mbir_alpha 2.0" in said
    assert "mbir_beta 1.5" in said  # the newest that fits the numpy that is there
    assert "numpy" not in said.replace("mbir", "")
    wheel(tmp_path, "mbir_gamma", "1.0", "numpy>=99")
    code, said = rehearsed(tmp_path, "mbir-gamma")
    assert code == 1
    assert "conflicting dependencies" in said
    code, said = rehearsed(tmp_path, "mbir-delta")
    assert code == 1
    assert "No matching distribution found" in said


def test_requirements_are_those_of_the_package():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = setup.requirements_file().read_text(encoding="utf-8").splitlines()
    ours = [line for line in lines if line and not line.startswith("#")]
    assert ours == project["dependencies"]
    assert not [line for line in ours if "==" in line]


def test_priors_with_licence_and_size(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFUSIONMBIR_MODELS", str(tmp_path))
    found = {prior.id: prior for prior in setup.priors()}
    bundled = found["ct-compact-v1"]
    assert bundled.bundled
    assert bundled.line().startswith("ct-compact-v1 - CT, 9.2 MB, CC BY 4.0")


@pytest.mark.parametrize(
    ("file", "name"), [("/a/AAPM 256 (ema).pth", "aapm-256--ema"), ("x.y.safetensors", "x.y"), ("/ä/ö.pt", "prior")]
)
def test_ids_from_file_names(file, name):
    assert setup.id_for(file) == name


@pytest.mark.slow
def test_import_of_a_checkpoint_runs_in_the_engine(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFUSIONMBIR_MODELS", str(tmp_path))
    with pytest.raises(InputError, match="bundled"):
        setup.begin_import(HERE, "/none.pth", "ct-compact-v1")
    process = setup.begin_import(HERE, str(tmp_path / "none.pth"), "mine")
    lines = finish(process)
    assert process.returncode != 0
    assert lines


def test_gui_package_loads_without_what_loads_slowly():
    names = ["parameters", "texts", "setup", "inputs", "scene", "compare", "results", "export"]
    code = (
        "import sys\n"
        + "".join(f"import DiffusionMBIRGui.{name}\n" for name in names)
        + "print(sorted(set(sys.modules) & {'torch', 'SimpleITK', 'h5py', 'safetensors', 'scipy', 'matplotlib'}))\n"
    )
    path = os.pathsep.join([str(ROOT), str(ROOT / "DiffusionMBIR")])
    environment = {**os.environ, "PYTHONPATH": path}
    shown = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_messages_of_jobs_are_those_that_the_panel_reads():
    read = {"Progress": "stage fraction seconds_left", "Finished": "seconds partial", "Failed": "reason resumable"}
    for kind, names in read.items():
        assert set(names.split()) <= set(getattr(messages, kind).__dataclass_fields__)
