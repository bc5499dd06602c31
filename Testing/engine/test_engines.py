"""Remote engines without a connection: names, messages, files by digest, previews, what is said of what goes wrong."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from DiffusionMBIRLib.cli import main
from DiffusionMBIRLib.engines import engine_of
from DiffusionMBIRLib.engines.base import Unreachable, engine_from_json, engine_to_json
from DiffusionMBIRLib.engines.hosted import HostedJob, is_output
from DiffusionMBIRLib.engines.install import package, requirements
from DiffusionMBIRLib.engines.link import system_environment
from DiffusionMBIRLib.engines.local import Local
from DiffusionMBIRLib.engines.look import FOUND, OVER, FoundPython, found_python, in_any_python, look_script, no_engine
from DiffusionMBIRLib.engines.previews import MOST_BYTES, pack_preview, unpack_preview
from DiffusionMBIRLib.engines.slurm import Slurm
from DiffusionMBIRLib.engines.ssh import Ssh, ssh_failure, ssh_shell
from DiffusionMBIRLib.engines.store import Damaged, Store
from DiffusionMBIRLib.engines.wire import Wire
from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.jobs.folder import JobFolder
from DiffusionMBIRLib.version import __version__
from Testing.engine.helpers import ROOT, body
from Testing.engine.jobs_helpers import request, small_prior

# --- names


def test_an_engine_is_named():
    assert isinstance(engine_of("local"), Local)
    ssh = engine_of("ssh:me@gpu.example.org:~/my env/bin/python")
    assert isinstance(ssh, Ssh)
    assert (ssh.where, ssh.python, ssh.launcher) == ("me@gpu.example.org", "~/my env/bin/python", "process")
    here = engine_of("slurm", ["--partition=gpu"])
    assert isinstance(here, Slurm)
    assert (here.shell(), here.python, here.options) == (["/bin/sh", "-s"], sys.executable, ("--partition=gpu",))
    assert isinstance(there := engine_of("slurm:login"), Slurm)
    assert there.shell()[-2:] == ["login", "exec /bin/sh -s"]


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("", (), "use local, ssh:HOST"),
        ("cloud", (), "use local, ssh:HOST"),
        ("ssh", (), "name the host"),
        ("ssh:", (), "name the host"),
        ("local:gpu", (), "local has no host"),
        ("ssh:-oProxyCommand=touch x", (), "is no name of a host"),
        ("ssh:a b", (), "is no name of a host"),
        ("ssh:a;reboot", (), "is no name of a host"),
        ("ssh:$(x)", (), "is no name of a host"),
        ("ssh:gpu:-x", (), "is no path of a Python"),
        ("ssh:gpu", ("--gres=gpu:1",), "options of sbatch are for slurm only"),
    ],
)
def test_a_name_that_is_none_is_refused_in_one_line(name, options, says):
    with pytest.raises(InputError, match=says) as error:
        engine_of(name, options)
    assert "\n" not in str(error.value)


def test_a_folder_keeps_its_engine(tmp_path):
    small_prior(tmp_path)
    volume = body((2, 16, 16))
    wanted = {"engine": "slurm:login", "options": ["--time=1:00:00"]}
    folder = JobFolder.create(tmp_path / "jobs", request(tmp_path, volume), volume, **wanted)
    assert folder.is_remote
    assert isinstance(found := folder.engine, Slurm)
    assert (found.name, found.options) == ("slurm:login", ("--time=1:00:00",))
    (folder.path / "engine.json").write_text("{}")
    with pytest.raises(InputError, match="engine.json: is damaged"):
        _ = folder.engine
    with pytest.raises(InputError, match="use local"):
        JobFolder.create(tmp_path / "jobs", request(tmp_path, volume), volume, engine="gpu")
    local = JobFolder.create(tmp_path / "jobs", request(tmp_path, volume), volume)
    assert not local.is_remote
    assert isinstance(local.engine, Local)
    assert len(list((tmp_path / "jobs").iterdir())) == 2


@pytest.mark.parametrize("text", ["", "[]", '{"engine": 3, "options": []}', '{"engine": "ssh:a", "options": [1]}'])
def test_a_damaged_engine_is_named(text):
    with pytest.raises(InputError, match="x/engine.json: is damaged"):
        engine_from_json(text, "x/engine.json")
    assert engine_from_json(engine_to_json("ssh:a"), "x").name == "ssh:a"


# --- messages


def test_messages_survive_the_wire():
    stream = io.BytesIO()
    wire = Wire(stream, stream)
    sent: list[tuple[dict[str, Any], bytes]] = [
        ({"a": 1, "text": "\u00e4\n"}, b""),
        ({"b": [1]}, b"\n\x00{" * 1000),
        ({}, b""),
    ]
    for entries, payload in sent:
        wire.send(entries, payload)
    stream.seek(0)
    for entries, payload in sent:
        message = wire.receive()
        assert message is not None
        found, brought = message
        assert entries.items() <= found.items()
        assert brought == payload
    assert wire.receive() is None


@pytest.mark.parametrize("text", [b"{", b'{"payload_bytes": 5}\nabc', b"no end"])
def test_a_message_that_was_cut_is_the_end(text):
    assert Wire(io.BytesIO(text), io.BytesIO()).receive() is None


@pytest.mark.parametrize("text", [b"hello\n", b"[1]\n", b'{"payload_bytes": -1}\n', b'{"payload_bytes": 1e99}\n'])
def test_what_is_no_message_is_refused(text):
    with pytest.raises(ValueError, match="."):
        Wire(io.BytesIO(text), io.BytesIO()).receive()


# --- previews


def smooth(shape):
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    return (1500 * np.exp(-(x**2 + 2 * y**2 + z**2)) - 1000).astype(np.float32)


def test_a_small_preview_has_all_voxels_and_states_its_error():
    volume = smooth((5, 33, 47))
    entries, payload = pack_preview(volume)
    found = unpack_preview(json.loads(json.dumps(entries)), payload)
    assert (found.shape, entries["factors"]) == (volume.shape, [1, 1, 1])
    assert found.dtype == np.float32
    assert float(np.abs(found - volume).max()) == pytest.approx(entries["error"], rel=1e-3)
    assert 0 < entries["error"] <= 1000 / 2048


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e7])
def test_a_preview_holds_any_unit(scale):
    volume = smooth((3, 16, 16)) * np.float32(scale)
    found = unpack_preview(*pack_preview(volume))
    np.testing.assert_allclose(found, volume, atol=float(np.abs(volume).max()) / 2000)
    assert not unpack_preview(*pack_preview(np.zeros((2, 4, 4), np.float32))).any()


@pytest.mark.parametrize("shape", [(24, 384, 384), (300, 100, 100), (1, 2000, 1500)])
def test_a_large_preview_is_coarser_and_fits(shape):
    noise = np.random.default_rng(0).normal(0, 20, shape).astype(np.float32)  # zlib finds nothing in it
    entries, payload = pack_preview(smooth(shape) + noise)
    assert MOST_BYTES / 4 < len(payload) <= MOST_BYTES
    assert max(entries["factors"]) > 1
    entries, payload = pack_preview(smooth(shape))
    np.testing.assert_allclose(unpack_preview(entries, payload), smooth(shape), atol=60)  # of 1500, at the last voxels


@pytest.mark.parametrize(
    "damage",
    [{"shape": [1, 2]}, {"shape": [9, 9, 9]}, {"factors": [0, 1, 1]}, {"shape": [1 << 20] * 3}, {"factors": "x"}],
)
def test_a_damaged_preview_is_refused(damage):
    entries, payload = pack_preview(smooth((3, 8, 8)))
    with pytest.raises(ValueError, match="damaged"):
        unpack_preview(entries | damage, payload)
    with pytest.raises(ValueError, match="damaged"):
        unpack_preview(entries, payload[:-9])


# --- files by digest


def test_an_upload_goes_on_where_it_broke(tmp_path):
    data = os.urandom(5000)
    digest = hashlib.sha256(data).hexdigest()
    store = Store(tmp_path / "files")
    assert store.have(digest, len(data)) == 0
    assert store.put(digest, len(data), 0, data[:2000]) == 2000
    assert Store(tmp_path / "files").have(digest, len(data)) == 2000  # another connection
    assert store.put(digest, len(data), 2000, data[2000:]) == len(data)
    assert store.have(digest, len(data)) == len(data)
    assert store.path(digest).read_bytes() == data
    store.bring(digest, tmp_path / "scan.npz")
    assert (tmp_path / "scan.npz").read_bytes() == data
    assert store.clean(3600.0) == 0
    assert store.clean(0.0) == len(data)
    assert (tmp_path / "scan.npz").read_bytes() == data


def test_an_upload_that_is_damaged_begins_anew(tmp_path):
    data = b"x" * 100
    digest = hashlib.sha256(data).hexdigest()
    store = Store(tmp_path / "files")
    with pytest.raises(Damaged, match="will be sent again"):
        store.put(digest, 100, 0, b"y" * 100)
    assert store.have(digest, 100) == 0
    assert store.put(digest, 100, 0, data) == 100


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", "a" * 63, "A" * 64])
def test_only_a_digest_names_a_file(tmp_path, digest):
    with pytest.raises(ValueError, match="not a SHA-256"):
        Store(tmp_path).path(digest)


@pytest.mark.parametrize("job", ["", "..", "a/b", "/etc", "x" * 65, "a b c d e f"])
def test_only_an_id_names_a_job(tmp_path, job):
    with pytest.raises(ValueError, match="not the id"):
        HostedJob(tmp_path, job)


def test_only_results_go_from_one_side_to_the_other():
    wanted = ("result.nrrd", "result-partial.nrrd", "result-interval-95.nrrd", "deviation.nrrd", "provenance.json")
    assert all(map(is_output, wanted))
    assert not any(map(is_output, ("job.json", "../result.nrrd", "result/x.nrrd", ".result.nrrd", "result.nrrd.sh")))


# --- what is said


SAID = [
    ("ssh: Could not resolve hostname gpu: Name or service not known", "no computer of this name"),
    ("Host key verification failed.", "host key is not known here; connect once by `ssh gpu`"),
    ("@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.", "find out why"),
    ("me@gpu: Permission denied (publickey).", "key is not accepted there"),
    ("ssh: connect to host gpu port 22: Connection refused", "refuses the connection"),
    ("ssh: connect to host gpu port 22: Connection timed out", "does not answer"),
    ("ssh: connect to host gpu port 22: No route to host", "cannot be reached"),
    ("Timeout, server gpu not responding.", "does not answer any more"),
    ("Connection to gpu closed by remote host.", "the connection broke"),
    ("", "the connection broke"),
]


@pytest.mark.parametrize(("text", "says"), SAID)
def test_what_ssh_says_becomes_one_line(text, says):
    error = ssh_failure("gpu", text, 255)
    assert str(error).startswith("gpu: ")
    assert says in str(error)
    assert "\n" not in str(error)


def test_what_may_pass_is_tried_again_and_what_may_not_is_told():
    may_pass = {text for text, _ in SAID if isinstance(ssh_failure("gpu", text, 255), Unreachable)}
    assert {text for text, _ in SAID} - may_pass == {text for text, _ in SAID[1:4]}
    assert "exit code 7" in str(ssh_failure("gpu", "", 7))


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ([], "no Python found there; name one, as in ssh:gpu:/path/to/python"),
        ([FoundPython("python3", "3.8.1", "", ())], "its Python is 3.8.1, 3.10 or newer is needed"),
        ([FoundPython("python3", "3.11.2", "", ("torch",))], "has no DiffusionMBIR; `diffusionmbir engine install"),
        ([FoundPython("python3", "3.11.2", "0.0.7", ())], f"has DiffusionMBIR 0.0.7, this computer {__version__};"),
        ([FoundPython("p", "3.11.2", __version__, ("torch", "h5py"))], "p lacks torch, h5py; `diffusionmbir engine"),
    ],
)
def test_what_is_not_there_is_told_in_one_line(found, says):
    told = str(no_engine("ssh:gpu:/old/python", "gpu", found))
    assert told.startswith("gpu: ")
    assert says in told
    assert "\n" not in told


def test_nothing_but_the_host_stands_on_a_command_line(monkeypatch):
    monkeypatch.delenv("DIFFUSIONMBIR_SSH", raising=False)
    command = ssh_shell("gpu")
    assert command[0] == "ssh"
    assert command[-3:] == ["--", "gpu", "exec /bin/sh -s"]
    assert "BatchMode=yes" in command


def test_programs_of_the_system_get_none_of_slicer_s_libraries():
    slicer = {"SLICER_HOME": "/opt/Slicer", "LD_LIBRARY_PATH": "/opt/Slicer/lib:/usr/local/lib", "PYTHONHOME": "/opt/x"}
    found = system_environment({**slicer, "PATH": "/opt/Slicer/bin:/usr/bin", "HOME": "/h"})
    kept = {"LD_LIBRARY_PATH": "/usr/local/lib", "PATH": "/usr/bin", "HOME": "/h", "LC_ALL": "C"}
    assert found == {"SLICER_HOME": "/opt/Slicer", **kept}
    assert system_environment({"LD_LIBRARY_PATH": "/a"}) == {"LD_LIBRARY_PATH": "/a", "LC_ALL": "C"}


@pytest.mark.skipif(os.name != "posix", reason="a shell of POSIX")
def test_the_script_tells_of_a_python_that_does_not_serve(tmp_path):
    other = tmp_path / "engine" / __version__ / "DiffusionMBIRLib"
    other.mkdir(parents=True)
    (other / "version.py").write_text('__version__ = "0.0.1"\n')
    variables = {"PATH": os.environ["PATH"], "DIFFUSIONMBIR_REMOTE": str(tmp_path), "HOME": str(tmp_path)}
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')  # without what is installed
    bare.chmod(0o755)
    script = look_script(str(bare))
    done = subprocess.run(["/bin/sh", "-s"], input=script, env=variables, capture_output=True, timeout=60)
    lines = done.stdout.decode().splitlines()
    about = found_python(lines[0])
    assert lines[0].startswith(FOUND)
    assert about is not None
    assert about.version == sys.version.split()[0]
    assert about.engine == "0.0.1"
    assert "torch" in about.lacks
    assert lines[-1] == OVER
    assert found_python("Welcome to gpu") is None


@pytest.mark.skipif(os.name != "posix", reason="a shell of POSIX")
@pytest.mark.parametrize("named", ["", "named", "~/named"])
def test_an_environment_that_was_installed_is_found(tmp_path, named):
    venv = tmp_path / "venv" / "bin"
    venv.mkdir(parents=True)
    for path, code in ((tmp_path / "named", 3), (venv / "python", 0)):
        path.write_text(f'#!/bin/sh\necho "$0 $1"\nexit {code}\n')
        path.chmod(0o755)
    given = str(tmp_path / named) if named == "named" else named
    variables = {"PATH": "/bin:/usr/bin", "DIFFUSIONMBIR_REMOTE": str(tmp_path), "HOME": str(tmp_path)}
    script = in_any_python(given, "pass", "")
    done = subprocess.run(["/bin/sh", "-s"], input=script, env=variables, capture_output=True, timeout=60, text=False)
    asked = [f"{tmp_path / 'named'} -c"] if named else []
    assert done.stdout.decode().splitlines() == [*asked, f"{venv / 'python'} -c"]
    assert done.returncode == 0


def test_what_is_installed_is_whole_and_names_nobody():
    import tarfile

    with tarfile.open(fileobj=io.BytesIO(package())) as archive:
        members = {member.name: member for member in archive.getmembers()}
    assert "DiffusionMBIRLib/jobs/bootstrap.py" in members
    assert any(name.startswith("Resources/Models/") for name in members)
    assert not any(member.uname or member.uid for member in members.values())
    assert not any(name.endswith(".pyc") for name in members)
    written = (ROOT / "Resources" / "requirements.txt").read_text()
    assert {name for name, _ in requirements()} >= {"torch", "numpy", "SimpleITK"}
    assert all(f"{name}>={least}" in written for name, least in requirements())


def test_the_command_line_asks_before_it_installs(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))  # not a terminal: nobody agreed
    assert main(["engine", "install", "ssh:nowhere.invalid"]) == 2
    assert "not agreed to" in capsys.readouterr().err
    assert main(["engine", "clean", "local"]) == 2
    assert main(["engine", "test", "gpu"]) == 2
    assert "use local, ssh:HOST" in capsys.readouterr().err
