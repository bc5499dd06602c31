"""What is passed on names nobody: results, scans, and the report for an issue."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.config import ReconSettings
from DiffusionMBIRLib.formats import write
from DiffusionMBIRLib.io.scans import read_scan
from DiffusionMBIRLib.io.volumes import read_volume
from DiffusionMBIRLib.jobs.redact import redactor
from DiffusionMBIRLib.provenance import alias, own_record
from DiffusionMBIRLib.reconstruction import reconstruct
from Testing.engine.helpers import body


def cleaner(path: str, name: str = "volume"):
    return redactor(SimpleNamespace(name=name, input={"path": path}, settings={"prior": "ct-compact-v1"}))


TEXTS = [
    "cannot read /srv/pacs/Doe Jane/1970-01-01/scan.nrrd: damaged",
    "No such file: '/srv/pacs/Doe Jane/first scan.nrrd'",
    'File "/home/janedoe/work/engine.py", line 3',
    '{"file": "C:\\\\Users\\\\Jane Doe\\\\scan.nrrd"}',
    "at C:\\Users\\Jane Doe\\scan.nrrd now",
    "~/Jane/Doe.nrrd",
    "/data/Doe Jane/case x.nrrd/0001 is short",
]


@pytest.mark.parametrize("text", TEXTS)
def test_of_a_path_nothing_is_left_but_the_name_of_code(text):
    cleaned = cleaner("/data/Doe Jane/case x.nrrd")(text).lower()
    for secret in ("doe", "jane", "1970", "pacs", "case", "x.nrrd"):
        assert secret not in cleaned
    assert ("engine.py" in cleaned) == ("engine.py" in text)


def test_a_word_of_the_jobs_name_leaves_no_part_of_a_path():
    clean = cleaner("/data/pacs7/mueller.nrrd", name="Mueller left")
    assert clean("bad: /srv/mueller/left/erika-0001.dcm in view 3") == "bad: <path> in view 3"
    assert clean("MUELLER failed") == "<redacted> failed"
    assert clean("50 steps, 1/mm, and/or") == "50 steps, 1/mm, and/or"


FOREIGN = {
    "software": "other" * 1000,
    "source": "Doe^Jane.nrrd",
    "kind": "simulated",
    "patient": "Doe^Jane",
    "settings": {"views": 8, "task": "/home/jane/x", "deep": {"patient": "Jane"}, "many": [1]},
    "remarks": ["fine", {"patient": "Jane"}, *["x"] * 1000],
    "guessed": "no list",
    "seed": 10**400,
    "measurement": {"patient": "Jane", "seed": 3, "measurement": {"seed": 4}},
}


def test_a_foreign_record_keeps_what_is_ours_and_short():
    record = own_record(FOREIGN)
    assert "jane" not in json.dumps(record).lower()
    assert record["source"] == alias("Doe^Jane.nrrd")
    assert record["settings"] == {"views": 8, "task": "x"}
    assert record["measurement"] == {"seed": 3}
    assert len(record["remarks"]) < 100
    assert len(json.dumps(record)) < 2000
    assert set(record) == {"software", "source", "kind", "settings", "remarks", "measurement"}
    assert own_record(record) == record
    assert own_record(["not an object"]) == {}


def test_an_alias_is_the_same_for_the_same_name_and_stays():
    assert alias("/a/case.nrrd") == alias(r"C:\b\case.nrrd") != alias("other.nrrd")
    assert alias(alias("case.nrrd")) == alias("case.nrrd")


def test_neither_scan_nor_result_names_the_file_that_they_came_from(tmp_path):
    scan = mbir.simulate(replace(body((2, 16, 16)), name="/home/x/Doe_Jane.nrrd"), views=4)
    assert scan.name == f"scan of {alias('Doe_Jane.nrrd')}"
    write(scan, tmp_path / "scan.h5")
    write(scan, tmp_path / "scan.npz")
    assert all(b"Jane" not in (tmp_path / f"scan.{form}").read_bytes() for form in ("h5", "npz"))
    write(replace(scan, provenance={**scan.provenance, "patient": "Doe_Jane"}), tmp_path / "scan.h5")
    read = read_scan(tmp_path / "scan.h5")
    assert read.name == scan.name
    result = reconstruct(read, settings=ReconSettings(method="fbp"))
    result.volume.save(tmp_path / "result.nrrd")
    header = (tmp_path / "result.nrrd").read_bytes().split(b"\n\n")[0]
    assert b"provenance" in header
    assert b"Jane" not in header
    assert "Jane" not in json.dumps(result.provenance)
    assert result.provenance["measurement"]["source"] == alias("Doe_Jane.nrrd")


@pytest.mark.parametrize(
    ("name", "kept"),
    [("/home/x/Doe_Jane.h5", False), ("scan of Doe_Jane.nrrd", False), (r"C:\Doe\Jane", False), ("dose 0.5", True)],
)
def test_a_scan_that_is_written_again_does_not_name_its_file(tmp_path, name, kept):
    scan = replace(mbir.simulate(body((2, 16, 16)), views=4), name=name)
    for form in ("h5", "npz"):
        write(scan, tmp_path / f"a.{form}")
        read = read_scan(tmp_path / f"a.{form}")
        assert (read.name == name) is kept
        assert "Jane" not in read.name


def test_a_volumes_header_passes_on_no_foreign_record(tmp_path):
    image = sitk.GetImageFromArray(np.zeros((2, 4, 4), np.int16))
    for key, value in {"provenance": json.dumps(FOREIGN), "modality": "CT" * 100, "units": "HU"}.items():
        image.SetMetaData(key, value)
    sitk.WriteImage(image, str(tmp_path / "a.nrrd"))
    metadata = read_volume(tmp_path / "a.nrrd").metadata
    assert "Jane" not in metadata["provenance"]
    assert len(metadata["modality"]) <= 64
    image.SetMetaData("provenance", "Jane Doe")
    sitk.WriteImage(image, str(tmp_path / "a.nrrd"))
    assert "provenance" not in read_volume(tmp_path / "a.nrrd").metadata
