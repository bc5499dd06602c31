"""The benchmark: what it runs, that nothing runs twice, and that its tables say what was recorded."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from DiffusionMBIRLib.benchmark.ablations import ablations_for
from DiffusionMBIRLib.benchmark.plan import (
    FULL,
    QUICK,
    SCANNER_ROWS,
    SCANNERS,
    PlannedScan,
    Row,
    limited_angle,
    planned_rows,
    rows_for,
    sparse_view,
)
from DiffusionMBIRLib.benchmark.plots import mean_psnr, save_plots
from DiffusionMBIRLib.benchmark.results import COLUMNS, Results
from DiffusionMBIRLib.benchmark.run import Subject, run_benchmark
from DiffusionMBIRLib.benchmark.tables import write_tables
from DiffusionMBIRLib.config import ReconSettings
from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.methods import methods_for, starts_for
from DiffusionMBIRLib.monitor import Silent
from DiffusionMBIRLib.provenance import plain
from DiffusionMBIRLib.tasks import task_info
from Testing.engine.helpers import body

METHODS = ("FBP", "ADMM-TV")
SCANS = (sparse_view(8), sparse_view(24))


class Counter(Silent):
    """Counts the steps that were computed."""

    steps = 0

    def tick(self, stage, done, total, **metrics):
        self.steps += 1


@pytest.fixture
def case(tmp_path):
    body((6, 32, 32)).save(tmp_path / "body.nrrd")
    return Subject("body", tmp_path / "body.nrrd", coarsen=1)


def run(case, output, scans=SCANS, **options):
    counter = Counter()
    records = run_benchmark([case], scans, output, methods=METHODS, monitor=counter, **options)
    return records, counter.steps


def test_every_row_of_the_plan_is_a_valid_run():
    for form in (QUICK, FULL):
        for scans in form.values():
            assert len({scan.label for scan in scans}) == len(scans)
            for scan in scans:
                rows = rows_for(scan.task, quick=form is QUICK)
                assert len({row.label for row in rows}) == len(rows)
                for row in rows:
                    settings = row.settings(scan.task, seed=5)
                    assert isinstance(settings, ReconSettings)
                    assert settings.method in methods_for(scan.task)
                    assert settings.seed == 5
    full = rows_for("sparse-view-ct", quick=False)
    evaluations = {row.label: row.settings("sparse-view-ct", 0).steps for row in full}
    assert evaluations["Algorithm 1, 4000"] == 2000  # two evaluations each
    assert {scan.views for scan in FULL["CT"] if scan.task == "sparse-view-ct"} >= {2, 4, 8, 12, 24, 36}


def test_figures_are_recorded_and_nothing_runs_twice(case, tmp_path):
    records, steps = run(case, tmp_path / "out")
    assert [(r["scan"], r["method"]) for r in records] == [
        (scan, method) for scan in ("8-views-noise-free", "24-views-noise-free") for method in METHODS
    ]
    assert mean_psnr(records[3]) > mean_psnr(records[1]) > mean_psnr(records[0])
    with (tmp_path / "out" / "results.csv").open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert tuple(lines[0]) == COLUMNS
    assert len(lines) == 3 * len(records)
    assert {line["plane"] for line in lines} == {"axial", "coronal", "sagittal"}
    assert float(lines[0]["psnr"]) == pytest.approx(records[0]["axial"]["psnr"], abs=1e-4)
    again, repeated = run(case, tmp_path / "out")
    assert again == json.loads(json.dumps(records))
    assert steps > 0
    assert repeated == 0


@pytest.mark.slow
def test_what_changed_or_was_damaged_runs_again(case, tmp_path):
    run(case, tmp_path / "out")
    _, other_seed = run(case, tmp_path / "out", seed=1)
    assert other_seed > 0
    (damaged,) = (tmp_path / "out" / "runs").glob("*_8-views-*admm-tv.json")
    damaged.write_text(damaged.read_text()[:50])
    _, repaired = run(case, tmp_path / "out", seed=1)
    assert 0 < repaired < other_seed


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r.pop("provenance"),
        lambda r: r.update(provenance=[]),
        lambda r: r["provenance"].update(settings=3),
        lambda r: r["provenance"].update(measurement={"settings": "a"}),
        lambda r: r.update(axial={"psnr": "good", "ssim": 1}),
        lambda r: r.update(seconds=None),
        lambda r: r.update(uncertainty={"error": 1}),
    ],
)
def test_a_record_of_other_content_is_as_if_there_were_none(tmp_path, change):
    settings = ReconSettings(method="fbp")
    record = {
        **dict.fromkeys(("key", "case", "scan", "dose", "method", "prior"), "a"),
        **{plane: {"psnr": 30.0, "ssim": 0.9} for plane in ("axial", "coronal", "sagittal")},
        "fingerprint": "f",
        "task": "sparse-view-ct",
        "views": 8,
        "nfe": 0,
        "seconds": 1.0,
        "residual": None,
        "provenance": {"settings": plain(settings)},
    }
    results = Results(tmp_path)
    path = tmp_path / "runs" / "a.json"
    path.write_text(json.dumps(record))
    assert results.record("a", "f", settings) == record
    change(record)
    path.write_text(json.dumps(record))
    assert results.record("a", "f", settings) is None
    for text in ("[]", "3", "[" * 100000):
        path.write_text(text)
        assert results.record("a", "f", settings) is None


def test_a_damaged_picture_is_named(tmp_path):
    results = Results(tmp_path)
    planes = dict.fromkeys(("axial", "coronal", "sagittal"), np.ones((2, 2)))
    results.keep_slices("a", planes)
    assert results.slices("a").keys() == planes.keys()
    path = tmp_path / "pictures" / "a.npz"
    for content in (path.read_bytes()[:60], b""):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"a\.npz: is missing or damaged"):
            results.slices("a")


@pytest.mark.slow
def test_a_cancelled_benchmark_keeps_what_it_has(case, tmp_path):
    from DiffusionMBIRLib.errors import Cancelled

    class Impatient(Counter):
        def tick(self, stage, done, total, **metrics):
            super().tick(stage, done, total, **metrics)
            if "24-views" in stage:
                raise Cancelled("enough")

    with pytest.raises(Cancelled):
        run_benchmark([case], SCANS, tmp_path, methods=METHODS, monitor=Impatient())
    assert len(list((tmp_path / "runs").glob("*.json"))) == 3  # FBP of 24 views has no steps to be cancelled in
    records, _ = run(case, tmp_path)
    assert len(records) == 4


@pytest.mark.slow
def test_a_killed_row_goes_on_where_it_was(case, tmp_path):
    from DiffusionMBIRLib.errors import Cancelled

    class Killed(Counter):
        def tick(self, stage, done, total, **metrics):
            super().tick(stage, done, total, **metrics)
            if "ADMM-TV" in stage and done == total - 5:
                raise Cancelled("enough")

    chosen = {"scans": (sparse_view(8),), "output": tmp_path / "whole"}
    (_, whole), steps = run(case, **chosen)
    with pytest.raises(Cancelled):
        run_benchmark([case], (sparse_view(8),), tmp_path / "again", methods=METHODS, monitor=Killed())
    assert list((tmp_path / "again" / "state").iterdir())
    (_, again), rest = run(case, tmp_path / "again", scans=(sparse_view(8),))
    assert again["axial"] == whole["axial"]
    assert again["seconds"] > 0
    assert rest < steps
    assert not (tmp_path / "again" / "state").exists()


@pytest.mark.slow
def test_table_and_plots(case, tmp_path):
    pytest.importorskip("matplotlib")
    records, _ = run(case, tmp_path, scans=(sparse_view(8), sparse_view(24), limited_angle(90)))
    write_tables(records, tmp_path / "results.md", machine={"gpu": "", "processor": "abacus", "threads": 2})
    text = (tmp_path / "results.md").read_text()
    assert "abacus, 2 threads" in text
    assert "Research use only" in text
    best = max(records[:2], key=lambda r: r["axial"]["psnr"])
    assert f"**{best['axial']['psnr']:.2f} / {best['axial']['ssim']:.3f}**" in text
    assert f"**{max(map(mean_psnr, records[2:4])):.2f}**" in text
    assert "| method | 8 views | 24 views |" in text
    made = save_plots(records, Results(tmp_path))
    assert len(made) == 9  # against seconds, evaluations and views; pictures and profiles of each scan
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in made)


def figures(method, psnr, seconds=1.0, **others):
    plane = {"psnr": psnr, "ssim": psnr / 50}
    entries = {"case": "body", "task": "sparse-view-ct", "scan": "8-views", "views": 8, "dose": "noise-free"}
    entries |= {"axial": plane, "coronal": plane, "sagittal": plane, "residual": 0.0, "nfe": 1}
    return entries | {"method": method, "seconds": seconds} | others


def test_the_page_says_who_wins_and_by_how_much(tmp_path):
    known = {"correlation": 0.5, "coverage_68": 0.6, "coverage_95": 0.9, "deviation": 30.0, "error": 40.0}
    records = [
        figures("FBPConvNet", 31.5, note="Smaller than published."),
        figures("Algorithm 1, 4000", 30.0, seconds=800.0),
        figures("Ours", 30.25, seconds=10.0),
        figures("Ours, mean of 4", 31.0, seconds=40.0, uncertainty=known),
    ]
    write_tables(records, tmp_path / "page.md", machine={"gpu": "H1", "processor": "", "threads": 2})
    text = (tmp_path / "page.md").read_text()
    assert "| Ours | 1 against 1 | 1 | +0.25 | +0.25 | +0.25 | 80 |" in text
    assert "| Ours, mean of 4 | 1 against 1 | 1 | +1.00 | +1.00 | +1.00 | 20 |" in text
    assert text.count("FBPConvNet, 31.500 against 31.000 of Ours, mean of 4") == 3
    assert "- FBPConvNet: Smaller than published." in text
    assert "| 0.50 | 60.0% | 90.0% | 30 | 40 |" in text
    timed = [r | {"cpu_seconds": r["seconds"] * (2 if "4000" in r["method"] else 1)} for r in records]
    write_tables(timed, tmp_path / "page.md", machine={"gpu": "", "processor": "abacus", "threads": 2})
    assert "| Ours | 1 against 1 | 1 | +0.25 | +0.25 | +0.25 | 160 |" in (tmp_path / "page.md").read_text()
    write_tables(records[2:], tmp_path / "ours.md", machine={"gpu": "H1", "processor": "", "threads": 2})
    alone = (tmp_path / "ours.md").read_text()
    assert "not ours" not in alone
    assert "times less time" not in alone


def test_every_ablation_is_a_valid_run_and_changes_something():
    for task in ("sparse-view-ct", "limited-angle-ct", "compressed-sensing-mri"):
        rows = ablations_for(task)
        settings = {row.label: row.settings(task, 0) for row in rows}
        assert len(settings) == len(rows)
        usual = ReconSettings.preset(task_info(task).preset, seed=0, method="dds")
        assert settings["DDS, as preset"] == usual
        assert all(chosen.method in methods_for(task) for chosen in settings.values())
        assert all(chosen.start in starts_for(task) for chosen in settings.values())


def test_only_the_middle_slices_are_scanned_where_asked(case):
    whole, middle = case.volume(), replace(case, slices=3).volume()
    assert middle.grid.shape == (3, 32, 32)
    assert (middle.array == whole.array[1:4]).all()
    step = middle.grid.origin_mm[2] - whole.grid.origin_mm[2]
    assert step == pytest.approx(whole.grid.spacing_mm[2])
    assert replace(case, slices=99).volume().grid == whole.grid


def test_an_unknown_method_is_named(case, tmp_path):
    with pytest.raises(InputError, match="--methods Magic: none of the scans has such a row"):
        run_benchmark([case], [sparse_view(8)], tmp_path, methods=["FBP", "Magic"])
    assert PlannedScan("sparse-view-ct", "x") == PlannedScan("sparse-view-ct", "x")
    assert Row("FBP", {"method": "fbp"}).settings("sparse-view-ct", 0).method == "fbp"


@pytest.mark.parametrize("scanner", SCANNERS)
def test_scans_of_each_scanner_have_all_their_rows(scanner):
    for scan in SCANNERS[scanner]:
        assert sorted(row.label for row in planned_rows(scan, quick=False)) == sorted(SCANNER_ROWS)
