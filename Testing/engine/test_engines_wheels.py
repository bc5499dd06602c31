"""An engine is brought to a computer without a network: packages as wheels, through a real ssh server."""

from __future__ import annotations

import base64
import hashlib
import os
import sys
import zipfile
from pathlib import Path

import pytest

from DiffusionMBIRLib.cli import main
from DiffusionMBIRLib.engines import engine_of
from DiffusionMBIRLib.engines.install import install_there, requirements, wheels_in
from DiffusionMBIRLib.engines.ssh import Ssh
from DiffusionMBIRLib.errors import EngineError, InputError, one_line
from DiffusionMBIRLib.version import __version__
from Testing.engine.remote_helpers import LACKING, server

NO_NETWORK = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0"}


def wheel(folder: Path, name: str, version: str) -> Path:
    """A package that holds nothing but its version."""
    about = f"{name.lower()}-{version}.dist-info"
    files = {
        f"{name.lower()}.py": f'__version__ = "{version}"\n',
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: by hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    path = folder / f"{name.lower()}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        listed = ""
        for inside, text in files.items():
            archive.writestr(inside, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            listed += f"{inside},sha256={digest},{len(text)}\n"
        archive.writestr(f"{about}/RECORD", f"{listed}{about}/RECORD,,\n")
    return path


@pytest.mark.slow
@pytest.mark.skipif(bool(LACKING), reason=LACKING or "ssh")
def test_packages_come_as_wheels_where_there_is_no_network(tmp_path, monkeypatch):
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    made = [wheel(wheels, name, least or "1.0") for name, least in requirements()]
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')  # without what is installed
    bare.chmod(0o755)
    with server(tmp_path / "ssh", **NO_NETWORK) as there:
        monkeypatch.setenv("DIFFUSIONMBIR_SSH", there.ssh)
        engine = engine_of(f"ssh:there:{bare}")
        assert isinstance(engine, Ssh)
        lines: list[str] = []
        with pytest.raises(EngineError) as error:
            install_there(engine, tell=lines.append)
        said = str(error.value)
        assert one_line(said) == said  # no part is left out
        assert f"--python-version {sys.version_info[0]}.{sys.version_info[1]} --platform " in said
        assert f" torch` and `diffusionmbir engine install ssh:there:{bare} --wheels wheels`" in said
        assert not (there.root / "engine" / __version__).exists()

        kept = there.root / "wheels"
        kept.mkdir()
        whole, part, wrong = made[0], made[1], made[2]
        (kept / whole.name).write_bytes(whole.read_bytes())  # as broken connections leave them
        (kept / part.name).write_bytes(part.read_bytes()[:50])
        (kept / wrong.name).write_bytes(b"?" * wrong.stat().st_size)
        with pytest.raises(EngineError, match=f"{wrong.name} arrived damaged; install once more"):
            install_there(engine, wheels=wheels, tell=lines.append)
        lines.clear()
        install_there(engine, wheels=wheels, tell=lines.append)
        sent = [line.split()[1] for line in lines if line.startswith("sends ") and ".whl" in line]
        assert sent == [path.name for path in made if path not in (whole, part)]  # each once
        assert not kept.exists()
        assert (there.root / "engine" / __version__ / "DiffusionMBIRLib" / "version.py").is_file()
        installed = {path.name for path in (there.root / "venv").glob("lib/*/site-packages/*.dist-info")}
        for path in made:  # but for what the Python below brings itself
            name = path.name.removesuffix("-py3-none-any.whl")
            satisfied = f"already satisfied: {name.partition('-')[0]}"
            assert f"{name}.dist-info" in installed or any(satisfied in line.lower() for line in lines), name
        assert there.wait_until_left() == []


def test_a_folder_without_wheels_is_refused(tmp_path, capsys):
    with pytest.raises(InputError, match=r"holds no wheels \(.whl\)"):
        wheels_in(tmp_path)
    assert main(["engine", "install", "ssh:nowhere.invalid", "--yes", "--wheels", str(tmp_path)]) == 2
    assert "holds no wheels" in capsys.readouterr().err
    wheel(tmp_path, "torch", "2.5")
    command = ["engine", "install", "ssh:nowhere.invalid", "--yes", "--wheels", str(tmp_path), "--build", "cpu"]
    assert main(command) == 2
    assert "leave out --build or --wheels" in capsys.readouterr().err
