"""The demo of MRI, on a volume that is small enough for a test."""

from __future__ import annotations

import json

import pytest

from DiffusionMBIRLib import demo
from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.io.volumes import read_volume, sample_data
from DiffusionMBIRLib.report import markdown_table
from Testing.engine.mri import head


@pytest.mark.slow
def test_the_demo_of_mri_writes_volumes_pictures_and_figures(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(demo, "read_volume", lambda path: head((3, 64, 112)))
    metrics = demo.run_demo(tmp_path, task="mri", device="cpu")
    assert json.loads((tmp_path / "metrics.json").read_text())["data"] == "mr_head.nrrd"
    assert [case["acceleration"] for case in metrics["cases"]] == [2, 4]
    for case in metrics["cases"]:
        assert set(case["methods"]) == {"Zero-filled", "SENSE-CG", "ADMM-TV", "Ours"}
        assert (tmp_path / f"compressed-sensing-mri_x{case['acceleration']}.png").stat().st_size > 20_000
        assert case["methods"]["Ours"]["axial"]["psnr"] > case["methods"]["Zero-filled"]["axial"]["psnr"]
    assert read_volume(tmp_path / "compressed-sensing-mri_x4_dual.nrrd").unit == ""
    assert "| x4 | ACS 8% | Zero-filled |" in markdown_table(metrics)


def test_the_bundled_head_is_what_its_description_says():
    volume = read_volume(sample_data("mr_head.nrrd"))
    assert volume.array.shape == (40, 192, 176)
    assert volume.unit == ""
    assert volume.array.min() == 0


def test_an_unknown_demo_is_named(tmp_path):
    with pytest.raises(InputError, match="demo of 'ultrasound' is not known; use one of ct, mri"):
        demo.run_demo(tmp_path, task="ultrasound")
