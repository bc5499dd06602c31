"""The command line in any terminal: one that knows ASCII only, is closed, full or obeys what a file's name says."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from DiffusionMBIRLib.cli import main
from DiffusionMBIRLib.cli.terminal import prepare, settle
from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.io.volumes import read_volume
from DiffusionMBIRLib.jobs.request import file_input
from DiffusionMBIRLib.names import printable, require_unicode
from Testing.engine.helpers import ROOT, body
from Testing.engine.jobs_helpers import new_job, small_prior

posix = pytest.mark.skipif(os.name != "posix", reason="a shell, and names of bytes")


@pytest.fixture(autouse=True)
def _own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFUSIONMBIR_JOBS", str(tmp_path / "jobs"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


def shell(line, **variables):
    """A line of bash in which ``mbir`` is the command: (exit code, stdout, stderr)."""
    environment = dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1", **variables)
    environment.pop("PYTHONUNBUFFERED", None)
    line = f"mbir() {{ '{sys.executable}' -m DiffusionMBIRLib \"$@\"; }}; {line}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, env=environment, check=False)
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    assert b"Exception ignored" not in done.stderr, done.stderr.decode()
    return done.returncode, done.stdout, done.stderr


@posix
@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "code", "told"),
    [
        ("mbir models >&-", 1, b"the standard output cannot be written to (Bad file descriptor)"),
        ("mbir models >/dev/full", 1, b"the standard output cannot be written to (No space left on device)"),
        ("PYTHONUNBUFFERED=1 mbir models >/dev/full", 1, b"cannot be written to (No space left on device)"),
        ("mbir --help >/dev/full", 1, b"the standard output cannot be written to (No space left on device)"),
        ("mbir --version >&-", 1, b"the standard output cannot be written to (Bad file descriptor)"),
        ("mbir models | true; exit ${PIPESTATUS[0]}", 1, b"the standard output cannot be written to (Broken pipe)"),
        ("mbir info gone.nrrd --json >/dev/full", 2, b"the standard output cannot be written to"),
        ("mbir models --quiet 2>&- >/dev/null", 0, b""),
        ("mbir info gone.nrrd 2>&-", 2, b""),
        ("mbir info gone.nrrd 2>/dev/full", 2, b""),
        ("mbir info gone.nrrd >&- 2>&- <&-", 2, b""),
        ("PYTHONIOENCODING=ascii mbir info $'gone\\xc3\\xa9.nrrd'", 2, b"gone\\xe9.nrrd: no such file"),
        ("PYTHONIOENCODING=latin-1 mbir info $'gone\\xce\\xb1.nrrd'", 2, b"gone\\u03b1.nrrd: no such file"),
        ("LC_ALL=C PYTHONCOERCECLOCALE=0 PYTHONUTF8=0 mbir info $'\\xc3\\xa9.nrrd'", 2, b"the name is not UTF-8"),
        ("mbir info $'\\xff.nrrd'", 2, b"\\udcff.nrrd: the name is not UTF-8"),
        ("mbir info $'\\xff.h5'", 2, b"\\udcff.h5: the name is not UTF-8"),
        ("mbir info $'\\e[2Jred.nrrd'", 2, b"\\x1b[2Jred.nrrd: no such file"),
        ("mbir $'\\e[2J'", 2, b"\\x1b[2J"),
        ("env -u HOME -u XDG_DATA_HOME \"$PYTHON\" -m DiffusionMBIRLib job list --folder .", 0, b""),
    ],
)  # fmt: skip
def test_whatever_the_streams_are_there_is_no_traceback(line, code, told):
    found, _, err = shell(line, PYTHON=sys.executable)
    assert found == code
    assert told in err
    assert err.count(b"\n") <= 3  # argparse's usage, or the refusal and the lost answer
    assert b"\x1b" not in err


@posix
@pytest.mark.slow
def test_ctrl_c_while_it_starts_is_one_line():
    """At moments spread over the imports; before Python runs a line of ours it is Python that speaks."""
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    code = "import sys; from DiffusionMBIRLib.__main__ import main; print('up', flush=True); sys.exit(main())"
    for delay_s in (0.05, 0.1):
        for _ in range(5):
            process = subprocess.Popen(
                [sys.executable, "-c", code, "info"],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            )
            process.stdout.readline()
            time.sleep(delay_s)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
            if not err.startswith(b"Exception ignored"):  # in a callback of Python's imports, where nobody can catch it
                break
        assert (process.returncode, err) == (1, b"diffusionmbir: cancelled\n")


def test_what_a_terminal_would_obey_is_shown():
    assert printable("a\x1b[2J\r\x07b\u202e\x9bc\n") == "a\\x1b[2J\\r\\x07b\\u202e\\x9bc\\n"
    assert printable("a\nb", keep="\n") == "a\nb"
    assert printable("\udcff.nrrd") == "\\udcff.nrrd"
    assert printable("Müller 体 \u00a0x") == "Müller 体 \u00a0x"
    with pytest.raises(InputError, match="the name is not UTF-8"):
        require_unicode("a\udcff")


@posix
def test_a_name_of_bytes_never_reaches_a_library(tmp_path):
    """SimpleITK ends the whole process over one."""
    body((3, 8, 8)).save(tmp_path / "volume.nrrd")
    path = os.fsdecode(bytes(tmp_path) + b"/\xff.nrrd")
    shutil.copy(tmp_path / "volume.nrrd", path)
    for use in (read_volume, body((3, 8, 8)).save, lambda name: file_input(tmp_path / name)):
        with pytest.raises(InputError, match="the name is not UTF-8"):
            use(path)


def test_names_with_controls_are_shown_in_the_list(tmp_path, capsys):
    small_prior(tmp_path)
    folder = new_job(tmp_path, name="evil\x1b[2J\nname\udcff")
    assert main(["job", "list"]) == 0
    out = capsys.readouterr().out
    assert "evil\\x1b[2J\\nname\\udcff" in out
    assert out.count("\n") == 1
    assert main(["job", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["jobs"][0]["id"] == folder.path.name


DEEP = "[" * 100_000 + "]" * 100_000


SPOILT = (
    *("", "{", "[]", "null", "5", "\udcff", "\x1b[2J", DEEP, f'{{"event": {DEEP}}}', '{"event": []}'),
    *('{"event": "finished"}', '{"event": "progress"}', '{"event": "log", "level": 1, "text": 2}', '{"name": ["x"]}'),
)


@pytest.mark.parametrize("name", ["summary.json", "job.json", "begun.json"])
def test_no_file_breaks_the_list(tmp_path, capsys, name):
    small_prior(tmp_path)
    whole, spoilt = new_job(tmp_path), new_job(tmp_path)
    for content in SPOILT:
        (spoilt.path / name).write_bytes(content.encode("utf-8", "surrogateescape"))
        assert main(["job", "list", "--json"]) == 0
        jobs = {job["id"]: job for job in json.loads(capsys.readouterr().out)["jobs"]}
        assert (jobs[whole.path.name]["status"], jobs[whole.path.name]["name"]) == ("new", "body")
        assert main(["job", "list"]) == 0
        line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith(spoilt.path.name))
        assert ("damaged" in line) == (name != "begun.json"), content[:100]


@pytest.mark.parametrize(
    "change",
    [{"name": 5}, {"device": []}, {"input": []}, {"task": []}, {"scan": 3}, {"settings": {"method": []}}]
    + [{"settings": {"steps": float("inf")}}, {"settings": None}, {"format": []}],
)  # fmt: skip
def test_a_request_of_any_content_is_damaged_at_most(tmp_path, capsys, change):
    small_prior(tmp_path)
    folder = new_job(tmp_path)
    entries = json.loads((folder.path / "job.json").read_text())
    (folder.path / "job.json").write_text(json.dumps(entries | change))
    assert main(["job", "list"]) == 0
    assert "damaged" in capsys.readouterr().out


@posix
def test_a_pipe_in_a_folder_is_not_waited_for(tmp_path, capsys):
    small_prior(tmp_path)
    folder = new_job(tmp_path)
    for name in ("lock", "summary.json", "begun.json"):
        os.mkfifo(folder.path / name)
    assert main(["job", "list"]) == 0
    assert "damaged" in capsys.readouterr().out


def test_streams_that_take_all_are_left_as_they_are(capsys):
    prepare()
    assert settle()
    assert main(["models"]) == 0
    out, err = capsys.readouterr()
    assert "ct-compact-v1" in out
    assert err == ""
