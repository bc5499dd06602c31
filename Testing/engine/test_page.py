"""The page of a result: all of it in one file, nothing of a patient, and a command that gives the same volume again."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from dataclasses import asdict, replace
from urllib.parse import unquote

import numpy as np
import pytest
from matplotlib.image import imread

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib import cli
from DiffusionMBIRLib.config import ReconSettings
from DiffusionMBIRLib.geometry import Grid
from DiffusionMBIRLib.io.volumes import read_volume
from DiffusionMBIRLib.page import gathered, pdf, write_page
from DiffusionMBIRLib.page.content import command
from DiffusionMBIRLib.page.pictures import WINDOWS, _telling
from DiffusionMBIRLib.page.sources import sources_of
from DiffusionMBIRLib.simulation import simulate
from DiffusionMBIRLib.volume import Volume
from Testing.engine.test_doubt import body, scan

OPTIONS = ["--steps", "2", "--start-sweeps", "2", "--seed", "7", "--no-weigh-spacing", "--quiet"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A scan and its result, as the command leaves them."""
    folder = tmp_path_factory.mktemp("run")
    scan(8).save(folder / "scan.h5")
    assert cli.main(["reconstruct", str(folder / "scan.h5"), "-o", str(folder / "recon.nrrd"), *OPTIONS]) == 0
    return folder


def test_a_page_is_one_file_with_everything(made):
    assert cli.main(["report", str(made / "recon.nrrd"), "--scan", str(made / "scan.h5"), "--quiet"]) == 0
    text = (made / "recon.html").read_text(encoding="utf-8")
    assert len(text) < 5e6
    assert "Research use only" in text
    assert not re.search(r"(src|href)=\"(?!data:)", text)
    assert "http" not in text.replace("http-equiv", "")
    assert text.count("data:image/png") == 3 + 1 + 2  # windows, scanner, convergence, residual of each view
    assert "8 views" in text


def test_the_command_on_the_page_gives_the_same_volume(made, tmp_path):
    write_page(gathered(made / "recon.nrrd"), tmp_path / "page.html")
    said = re.search(r"<code>(.*?)</code>", (tmp_path / "page.html").read_text(encoding="utf-8"))
    assert said is not None
    words = shlex.split(said.group(1).replace("SCAN", str(made / "scan.h5")).replace("RESULT", str(tmp_path / "again")))
    assert words[0] == "diffusionmbir"
    assert cli.main([*words[1:], "--quiet"]) == 0
    again, before = read_volume(tmp_path / "again.nrrd"), read_volume(made / "recon.nrrd")
    assert np.array_equal(again.array, before.array)


def test_a_method_whose_preset_says_otherwise_is_repeated_as_it_ran(tmp_path):
    """Of limited angles, which the volume does not tell, by a method with a table of its own in the preset."""
    simulate(body(), task="limited-angle-ct", coarsen=2, views=12).save(tmp_path / "scan.h5")
    scanned, first, again = (str(tmp_path / name) for name in ("scan.h5", "first.nrrd", "again.nrrd"))
    options = ["--method", "dds", "--steps", "2", "--start-sweeps", "2", "--cg-steps", "5", "--quiet"]
    assert cli.main(["reconstruct", scanned, "-o", first, *options]) == 0
    words = shlex.split(
        command(gathered(tmp_path / "first.nrrd")).replace("SCAN", scanned).replace("RESULT.nrrd", again)
    )
    assert cli.main([*words[1:], "--quiet"]) == 0
    assert np.array_equal(read_volume(first).array, read_volume(again).array)


def test_what_a_file_says_is_text_and_never_markup(made, tmp_path):
    volume = read_volume(made / "recon.nrrd")
    record = json.loads(volume.metadata["provenance"])
    record["remarks"] = ["<script>alert(1)</script>"]
    record["measurement"]["guessed"] = ["<img src=x>"]
    replace(volume, metadata={"provenance": json.dumps(record), "patient": "Jane Doe"}).save(tmp_path / "odd.nrrd")
    page = write_page(gathered(tmp_path / "odd.nrrd"), tmp_path / "odd.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;" in page
    assert "Jane" not in page


@pytest.fixture
def doubted(tmp_path):
    """A result beside what its run told of its doubt: one structure that only the prior vouches for."""
    shape, grid = (3, 24, 24), Grid((3, 24, 24), (1.0, 1.0, 2.0))
    array = np.zeros(shape, np.float32)
    array[1, 10:13, 14:17] = 1500.0
    record = {"settings": asdict(ReconSettings()), "doubt": {"filled_in": 0.4, "unlike": 1.0, "limit": 2.0, "odd": "x"}}
    parts = {
        "": array, "-prior-part": array, "-interval-95": np.full(shape, 30, np.float32),
        "-filled": np.full(shape, 0.5, np.float32), "-less-tv": 0.4 * array,
    }  # fmt: skip
    for mark, values in parts.items():
        Volume(values, grid, metadata={"provenance": json.dumps(record)}).save(tmp_path / f"recon{mark}.nrrd")
    return tmp_path / "recon.nrrd"


def test_a_page_shows_what_only_the_prior_vouches_for(doubted, tmp_path):
    text = write_page(gathered(doubted), tmp_path / "page.html").read_text(encoding="utf-8")
    assert text.count("data:image/png") == 3 + 3 + 1  # windows, interval, share and difference, crops
    assert "1 small structures stand out" in text
    row = re.search(r"<tr><td>1</td>(.*?)</tr>", text)
    assert row is not None
    cells = re.findall(r"<td>(.*?)</td>", row.group(1))
    assert cells[0] == "14, 10, 2"
    assert cells[2].startswith("1500 HU (&plusmn; ")
    assert cells[3].startswith("+1")  # of 1500 less a little of its own in the surroundings
    assert "e+" not in row.group(1)
    assert "less that of total variation" in text
    assert "40.0 % of the detail" in text
    assert "1.00 spreads; usual is up to 2.00" in text
    (tmp_path / "recon-prior-part.nrrd").unlink()
    assert "only the prior vouches" not in write_page(gathered(doubted), tmp_path / "b.html").read_text(
        encoding="utf-8"
    )


def test_a_page_is_printed_by_the_browser_that_is_there(made, tmp_path, monkeypatch, capsys):
    """Into a file that only appears whole; a browser that is not there, or prints nothing, is named in one line."""
    options = ["report", str(made / "recon.nrrd"), "-o", str(tmp_path / "p.html"), "--pdf", str(tmp_path / "p.pdf")]
    monkeypatch.setenv(pdf.BROWSER, str(tmp_path / "nothing"))
    assert cli.main([*options, "--quiet"]) == 2
    assert "is no program" in capsys.readouterr().err
    assert (tmp_path / "p.html").is_file()  # can be printed by hand
    monkeypatch.setenv(pdf.BROWSER, sys.executable)  # refuses the options
    with pytest.raises(mbir.EngineError, match="did not print"):
        pdf.write_pdf(tmp_path / "p.html", tmp_path / "p.pdf")
    monkeypatch.delenv(pdf.BROWSER)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(pdf, "_PLACES", {})
    with pytest.raises(mbir.InputError, match="no Chromium, Chrome or Edge"):
        pdf.write_pdf(tmp_path / "p.html", tmp_path / "p.pdf")
    assert not (tmp_path / "p.pdf").exists()


def test_a_structure_is_shown_in_the_window_that_tells_most_of_it():
    assert _telling(WINDOWS, 60.0, -40.0)[0] == "soft tissue"
    assert _telling(WINDOWS, -700.0, -850.0)[0] == "lung"
    assert _telling(WINDOWS, 1300.0, 700.0)[0] == "bone"


@pytest.mark.slow
@pytest.mark.skipif(pdf.find_browser() is None, reason="no Chromium, Chrome or Edge")
def test_a_printed_page_is_a_pdf(made, tmp_path):
    page = write_page(gathered(made / "recon.nrrd"), tmp_path / "page.html")
    printed = pdf.write_pdf(page, tmp_path / "page.pdf").read_bytes()
    assert printed.startswith(b"%PDF-")
    assert 1 < printed.count(b"/Type /Page\n") + printed.count(b"/Type /Page ") < 12
    assert len(printed) < 5e6


@pytest.mark.slow
@pytest.mark.skipif(pdf.find_browser() is None, reason="no Chromium, Chrome or Edge")
def test_a_page_opens_without_an_error_and_fits_a_narrow_window(doubted, tmp_path):
    """The browser's console stays empty, and nothing is wider than the window: a picture of it ends in the margin."""
    page = write_page(gathered(doubted), tmp_path / "page.html")
    shot = tmp_path / "shot.png"
    browser = [str(pdf.find_browser()), "--headless", "--disable-gpu", "--no-sandbox", "--hide-scrollbars"]
    browser += [f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--window-size=600,3000"]
    done = subprocess.run(
        [*browser, f"--screenshot={shot}", page.as_uri()], capture_output=True, timeout=120, check=True
    )
    assert b"CONSOLE" not in done.stderr
    pixels = imread(shot)[..., :3].mean(axis=-1)
    assert (pixels[:, -10:] == 1).all()
    assert (pixels[:, 20:-20] < 0.5).mean() > 0.005


def test_what_does_not_belong_together_is_refused(made, tmp_path):
    body().save(tmp_path / "plain.nrrd")
    with pytest.raises(mbir.InputError, match="no record of a run"):
        gathered(tmp_path / "plain.nrrd")
    other = mbir.read(made / "scan.h5")
    small = replace(other, grid=replace(other.grid, shape=(3, 8, 8)), stored_grid=None)
    with pytest.raises(mbir.InputError, match="give its own scan"):
        gathered(made / "recon.nrrd", small)
    for name in ("recon.nrrd", "recon-filled.nrrd"):
        (tmp_path / name).write_bytes((made / "recon.nrrd").read_bytes())
    body(side=16).save(tmp_path / "recon-filled.nrrd")
    with pytest.raises(mbir.InputError, match="recon-filled"):
        gathered(tmp_path / "recon.nrrd")


def test_several_results_get_an_index(made, tmp_path):
    for name in ("a.nrrd", "b.nrrd"):
        (tmp_path / name).write_bytes((made / "recon.nrrd").read_bytes())
    assert cli.main(["report", str(tmp_path / "a.nrrd"), str(tmp_path / "b.nrrd"), "--quiet"]) == 0
    index = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert re.findall(r'href="([^"]+\.html)"', index) == ["a.html", "b.html"]


def test_a_folder_of_cases_gets_its_pages_and_their_index(tmp_path):
    """With the scan that each job simulated, by the names of the cases; what is not finished is left out."""
    from DiffusionMBIRLib.jobs.cases import Case, run_cases

    choices = {"method": "sirt", "sirt_iterations": 3, "views": 6, "coarsen": 2, "device": "cpu"}
    cases = [Case(name, body(1), "sparse-view-ct", choices=choices) for name in ("a/b: chest", "second")]
    damaged = tmp_path / "damaged.nrrd"
    damaged.write_bytes(b"NRRD0004\ntype: float\n\n")
    rows = run_cases([*cases, Case("third", damaged)], tmp_path)
    assert [row["status"] for row in rows] == ["finished", "finished", "failed"]
    assert cli.main(["report", str(tmp_path), "--quiet"]) == 0
    index = (tmp_path / "index.html").read_text(encoding="utf-8")
    links = [tmp_path / unquote(link) for link in re.findall(r'href="([^"]+\.html)"', index)]
    assert [link.parent.name for link in links] == ["reports", "reports"]
    assert "a/b: chest" in index
    assert "third" not in index
    for link in links:
        page = link.read_text(encoding="utf-8")
        assert "6 views" in page
        assert "Residual of each view" in page
    assert cli.main(["report", str(tmp_path / "jobs" / rows[0]["job"]), "--quiet"]) == 0
    assert "6 views" in (tmp_path / "jobs" / rows[0]["job"] / "report.html").read_text(encoding="utf-8")
    with pytest.raises(mbir.InputError, match="neither the folder of a job"):
        sources_of([tmp_path / "jobs"])
