"""The page in the browser, but for the browser: who gets anything, which files there are, what may be asked for."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.cli import main
from DiffusionMBIRLib.errors import EngineError, InputError
from DiffusionMBIRLib.jobs.messages import Event, Finished, Preview, Progress
from DiffusionMBIRLib.serve import server
from DiffusionMBIRLib.serve.access import Access
from DiffusionMBIRLib.serve.session import USUAL, Session, Wish, amount_of, event_line, presets_for
from DiffusionMBIRLib.serve.sources import Sources
from DiffusionMBIRLib.tasks import TASKS
from Testing.engine.helpers import body

SPARSE = "sparse-view-ct"


# --- who gets anything


def known(access: Access, **others: str) -> dict[str, str]:
    """The headers of a browser that has shown the token."""
    return {"Host": "127.0.0.1:8400", "Cookie": access.cookie.partition(";")[0], **others}


def test_the_token_is_long_new_and_compared_as_a_whole():
    access = Access()
    assert len(access.token) >= 43  # 256 bits
    assert Access().token != access.token
    assert access.has_token({"token": access.token})
    for wrong in ("", access.token[:-1], access.token + "a", Access().token, "\u00e4", "\ud800"):
        assert not access.has_token({"token": wrong})
    assert not access.has_token({})
    assert access.address("127.0.0.1", 8400) == f"http://127.0.0.1:8400/?token={access.token}"
    assert access.address("::1", 1).startswith("http://[::1]:1/?token=")


def test_a_browser_is_known_by_a_cookie_that_scripts_and_other_sites_do_not_have():
    access = Access()
    assert access.is_known(known(access))
    assert "HttpOnly" in access.cookie
    assert "SameSite=Strict" in access.cookie
    assert access.token not in access.cookie
    name, _, value = known(access)["Cookie"].partition("=")
    for wrong in ("", name, f"{name}=", f"{name}={value[:-1]}", f"x={value}", f"{name}={access.token}", "=;=", "\x00"):
        assert not access.is_known({"Host": "127.0.0.1:8400", "Cookie": wrong})
    assert not access.is_known(known(Access()))
    assert not access.is_known({"Host": "127.0.0.1:8400"})


def test_pages_of_other_servers_on_this_host_are_refused():
    access = Access()
    assert access.is_known(known(access, Origin="http://127.0.0.1:8400"))
    for origin in ("http://127.0.0.1:8401", "http://evil.example", "null", ""):
        assert not access.is_known(known(access, Origin=origin))


def test_requests_without_the_token_get_nothing_from_a_server():
    """Of a real server of aiohttp; what is added after the guard is guarded as well."""
    aiohttp = pytest.importorskip("aiohttp")
    from aiohttp import web

    access = Access()

    async def volume(request: Any) -> Any:
        return web.Response(text="volume")

    async def page(request: Any) -> Any:
        return web.Response(text="page")

    async def ask_everything() -> None:
        app = web.Application()
        access.guard(app)
        app.router.add_get("/result", volume)
        app.router.add_get("/", page)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        base = f"http://127.0.0.1:{runner.addresses[0][1]}"
        # Cookies of addresses that are numbers are kept only by a jar that is told to.
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as client:
            for path in ("/", "/result", "/nowhere", "/?token=x", f"/result?token={access.token}", "/../etc/passwd"):
                async with client.get(base + path, allow_redirects=False) as answer:
                    assert (answer.status, await answer.read()) == (403, b""), path
            async with client.post(f"{base}/?token={access.token}") as answer:
                assert answer.status == 403
            async with client.get(f"{base}/?token={access.token}") as answer:
                assert (str(answer.url), await answer.text()) == (f"{base}/", "page")
                assert answer.headers["Referrer-Policy"] == "no-referrer"
                assert access.token not in str(answer.headers)
            async with client.get(f"{base}/result") as answer:
                assert (answer.status, await answer.text()) == (200, "volume")
            async with client.get(f"{base}/result", headers={"Origin": "http://127.0.0.1:1"}) as answer:
                assert answer.status == 403
        await runner.cleanup()

    asyncio.run(ask_everything())


# --- which files there are


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a volume and a scan of it, one beside it that is nobody's business, and results."""
    inside = tmp_path / "inside"
    for made in (inside / "deeper", tmp_path / "results"):
        made.mkdir(parents=True)
    volume = body((4, 24, 24))
    for path in (tmp_path / "secret.nrrd", inside / "body.nrrd", inside / "deeper" / "other.nrrd"):
        volume.save(path)
    mbir.simulate(volume, views=8).save(inside / "scan.h5")
    for notes in ("notes.txt", "notes.md"):
        (inside / notes).write_text("no volume", encoding="utf-8")
    return inside


def test_files_of_a_folder_are_offered_by_name_and_nothing_else(folder):
    sources = Sources([folder])
    assert sources.names() == ["body.nrrd", "scan.h5"]
    assert sources.path("scan.h5") == folder / "scan.h5"
    wrong = (
        "../secret.nrrd", str(folder.parent / "secret.nrrd"), "/etc/passwd", "notes.txt", "deeper/other.nrrd", "", ".",
        "body.nrrd/../../secret.nrrd", "BODY.NRRD", None, 0, ["body.nrrd"], {"a": 1},
    )  # fmt: skip
    for name in wrong:
        with pytest.raises(InputError, match="not among those"):
            sources.path(name)


def test_folders_of_series_are_sources_themselves(folder):
    series = folder / "series"
    series.mkdir()
    (series / "0001").write_bytes(bytes(128) + b"DICM")
    assert Sources([folder]).names() == ["body.nrrd", "scan.h5", "series"]
    assert Sources([series]).path("series") == series


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_links_lead_nowhere_else(folder):
    (folder / "out.nrrd").symlink_to(folder.parent / "secret.nrrd")
    (folder / "all").symlink_to(folder.parent)
    (folder / "in.nrrd").symlink_to(folder / "body.nrrd")
    (folder / "gone.nrrd").symlink_to(folder / "missing.nrrd")
    sources = Sources([folder])
    assert sources.names() == ["body.nrrd", "in.nrrd", "scan.h5"]
    body_path = folder / "body.nrrd"
    body_path.unlink()
    body_path.symlink_to(folder.parent / "secret.nrrd")  # after the start
    with pytest.raises(InputError, match="not among those"):
        sources.path("body.nrrd")


def test_named_files_are_offered_even_where_their_names_are_the_same(folder):
    other = folder / "deeper" / "body.nrrd"
    body((4, 24, 24)).save(other)
    sources = Sources([folder / "body.nrrd", other, other])
    assert sources.names() == ["body.nrrd", "deeper/body.nrrd", "deeper/body.nrrd'"]
    assert sources.path("deeper/body.nrrd") == other


@pytest.mark.parametrize(
    ("named", "reason"),
    [
        ("missing.nrrd", "missing.nrrd: no such file"),
        ("inside/notes.md", "notes.md: is no scan or volume"),
        ("results", "results: holds no scan or volume"),
    ],
)
def test_what_cannot_be_offered_is_refused_at_the_start(folder, named, reason):
    with pytest.raises(InputError, match=reason):
        Sources([folder.parent / named])


# --- what may be asked for


@pytest.fixture
def session(folder, monkeypatch) -> Session:
    for name in ("XDG_DATA_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(folder.parent / "data"))
    return Session(Sources([folder]), folder.parent / "results", folder.parent / "jobs", device="cpu")


def test_a_volume_is_shown_and_a_scan_is_not(session):
    look = session.look("body.nrrd")
    assert look.volume is not None
    assert look.tasks[0] == SPARSE
    assert set(look.tasks) == set(TASKS)
    look = session.look("scan.h5")
    assert look.volume is None
    assert look.tasks == (SPARSE,)


@pytest.mark.parametrize("task", TASKS)
def test_each_task_has_its_amount_and_presets(task):
    amount = amount_of(task)
    assert amount.kind(amount.usual) == amount.usual
    assert presets_for(task, is_scan=False)
    assert presets_for(task, is_scan=True)[0] == USUAL
    assert {amount_of(SPARSE).label, amount_of("compressed-sensing-mri").label} == {"Views", "Acceleration"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"source": "../secret.nrrd"}, "not among those"),
        ({"task": "surgery"}, "task is not known"),
        ({"task": None}, "task is not known"),
        ({"preset": "/etc/passwd"}, "preset is not one of sparse-view"),
        ({"preset": USUAL}, "preset is not one of"),
        ({"amount": "many"}, "Views: this is no whole number"),
        ({"amount": 8.5}, "Views: this is no whole number"),
        ({"amount": "1e400"}, "Views: this is no whole number"),
        ({"amount": [8]}, "Views: this is no whole number"),
        ({"amount": "nan"}, "Views: this is no whole number"),
        ({"amount": True}, "Views: this is no whole number"),
        ({"amount": 0}, "views.* 0"),
        ({"steps": -3}, "steps"),
        ({"steps": "9" * 40}, "steps: this is no whole number"),
        ({"coarsen": 1000}, "coarsen"),
    ],
)
def test_what_a_browser_sends_is_checked(session, change, reason):
    wish = {"source": "body.nrrd", "task": SPARSE, "preset": "sparse-view", "amount": 8, **change}
    with pytest.raises(InputError, match=reason):
        session.start(Wish(**wish))
    assert not session.running
    assert not (session.root).exists()


def finish(session: Session) -> list[Event]:
    """All events of the run."""
    assert session.job is not None
    seen: list[Event] = []
    while session.running:
        seen += session.poll()
    return seen


@pytest.mark.slow
def test_runs_leave_results_that_overwrite_nothing(session, folder):
    wish = Wish("body.nrrd", SPARSE, "sparse-view-quick", amount="6", coarsen="2", steps="1")
    session.start(wish)
    with pytest.raises(InputError, match="under way; cancel it"):
        session.start(wish)
    seen = finish(session)
    assert any(isinstance(event, Preview) for event in seen)
    array, grid = session.preview()
    assert array.shape == grid.shape == (4, 12, 12)
    volume = session.result()
    assert volume.grid == grid
    assert session.saved == folder.parent / "results" / "body-reconstruction.nrrd"
    np.testing.assert_array_equal(mbir.read_volume(session.saved).array, volume.array)
    recorded = mbir.read_volume(session.saved).metadata["provenance"]
    assert '"views": 6' in recorded.replace('\\"', '"')
    assert event_line(seen[-1]).startswith("done in ")
    session.start(Wish("scan.h5", SPARSE, "sparse-view-quick", steps=1))
    finish(session)
    session.result()
    assert session.saved.name == "scan-reconstruction.nrrd"
    session.start(wish)
    session.cancel()
    last = finish(session)[-1]
    assert isinstance(last, Finished)
    assert last.partial
    session.result()
    assert sorted(path.name for path in session.output.iterdir()) == [
        "body-reconstruction.nrrd", "scan-reconstruction.nrrd",
    ]  # fmt: skip
    assert session._free_name() == folder.parent / "results" / "body-reconstruction-2.nrrd"


def test_a_run_that_fails_says_why(session, folder):
    session.start(Wish("body.nrrd", SPARSE, "sparse-view-quick", coarsen=5))  # 24 columns
    finish(session)
    with pytest.raises(EngineError, match="cannot be divided by 5"):
        session.result()


def test_progress_is_told_for_people():
    assert event_line(Progress("dual", 3, 20, 0.1, 5.0, None)) == "dual 3 of 20"
    assert event_line(Progress("dual", 3, 20, 0.1, 5.0, 61.4)) == "dual 3 of 20, 61 s left"
    assert event_line(Progress("dual", 3, 20, 0.1, 5.0, 600.0)) == "dual 3 of 20, 10 min left"


# --- the command


@pytest.fixture
def with_packages(monkeypatch):
    """As if they were there: what these tests refuse comes before they are used."""
    monkeypatch.setattr(server, "find_spec", lambda name: name)


def refusal(capsys, *arguments) -> str:
    assert main(["serve", *map(str, arguments)]) == 2
    told_of = capsys.readouterr()
    assert told_of.out == ""
    assert told_of.err.count("\n") == 1
    return told_of.err


def test_missing_packages_are_named(monkeypatch, folder, capsys):
    monkeypatch.setattr(server, "find_spec", lambda name: None)
    assert "needs the package trame-slicer" in refusal(capsys, folder)


@pytest.mark.usefixtures("with_packages")
def test_what_cannot_be_served_is_refused(folder, capsys):
    assert "missing: no such file" in refusal(capsys, folder / "missing")
    assert "is no folder that can be written to" in refusal(capsys, folder, "-o", folder / "missing")
    assert "--port must be between" in refusal(capsys, folder, "-o", folder, "--port", 70000)
    assert "engine 'cloud'" in refusal(capsys, folder, "-o", folder, "--engine", "cloud")


def test_a_port_in_use_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port} of 127.0.0.1 is in use; name another"):
            server.listen("127.0.0.1", port)
    assert server.listen("127.0.0.1", 0) > 0
    with pytest.raises(InputError, match="cannot be listened on"):
        server.listen("192.0.2.1", 0)  # of documentation, nobody's


def test_only_loopback_is_served_without_a_warning():
    for host in ("127.0.0.1", "::1", "localhost"):
        assert server.warning_of(host) == ""
    for host in ("0.0.0.0", "::", "192.168.1.2", "example.org"):
        assert "not encrypted" in server.warning_of(host)
    assert server.shown("127.0.0.1") == "127.0.0.1"
    assert server.shown("0.0.0.0") == socket.gethostname()
