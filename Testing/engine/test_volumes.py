"""Volume files: round trips, damage, full disks and the bundled sample."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from DiffusionMBIRLib.errors import Cancelled, InputError
from DiffusionMBIRLib.geometry import Grid
from DiffusionMBIRLib.io.files import replacing
from DiffusionMBIRLib.io.volumes import WRITABLE, read_volume, sample_data, write_volume
from DiffusionMBIRLib.models import sha256
from DiffusionMBIRLib.volume import Volume
from Testing.engine.helpers import ROOT, body, rotation, run_with_file_limit


def tilted(dtype=np.int16) -> Volume:
    grid = Grid((3, 4, 5), (0.5, 0.75, 2.0), (10.0, -20.0, 30.0), tuple(rotation((10, -20, 100)).reshape(-1)))
    return Volume((np.arange(60).reshape(grid.shape) - 30).astype(dtype), grid)


@pytest.mark.parametrize("suffix", WRITABLE)
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_round_trip_keeps_values_type_and_place(tmp_path, suffix, dtype):
    volume = tilted(dtype)
    volume.save(tmp_path / f"v{suffix}")
    back = read_volume(tmp_path / f"v{suffix}")
    assert back.array.dtype == dtype
    assert np.array_equal(back.array, volume.array)
    assert back.grid.shape == volume.grid.shape
    for field in ("spacing_mm", "origin_mm", "direction"):
        assert np.allclose(getattr(back.grid, field), getattr(volume.grid, field), atol=1e-5)
    assert [p.name for p in tmp_path.iterdir()] == [f"v{suffix}"]


def test_nrrd_header_carries_unit_and_metadata(tmp_path):
    record = '{"seed": 7,\n "notice": "a text"}'
    volume = Volume(np.zeros((1, 2, 3), np.float32), Grid((1, 2, 3)), unit="1/mm", metadata={"provenance": record})
    write_volume(volume, tmp_path / "v.nrrd")
    back = read_volume(tmp_path / "v.nrrd")
    assert back.unit == "1/mm"
    assert json.loads(back.metadata["provenance"]) == json.loads(record)


@pytest.mark.parametrize(("dtype", "stored"), [(np.bool_, np.uint8), (np.float16, np.float32)])
def test_types_that_no_format_knows_are_widened(tmp_path, dtype, stored):
    volume = Volume(np.ones((2, 3, 4), dtype), Grid((2, 3, 4)))
    write_volume(volume, tmp_path / "v.nrrd")
    assert read_volume(tmp_path / "v.nrrd").array.dtype == stored


def test_a_single_image_becomes_one_slice(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((4, 5), np.float32)), str(tmp_path / "flat.mha"))
    assert read_volume(tmp_path / "flat.mha").grid.shape == (1, 4, 5)


@pytest.mark.parametrize("suffix", WRITABLE)
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.97])
def test_truncated_file_is_refused(tmp_path, suffix, share):
    path = tmp_path / f"v{suffix}"
    noise = np.random.default_rng(0).normal(size=(3, 20, 20)).astype(np.float32)
    write_volume(Volume(noise, Grid(noise.shape)), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(InputError, match=re.escape(str(path))) as caught:
        read_volume(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", WRITABLE)
def test_foreign_file_is_refused(tmp_path, suffix):
    path = tmp_path / f"v{suffix}"
    path.write_bytes(b"this is a letter to a friend\n" * 100)
    with pytest.raises(InputError, match=re.escape(str(path))):
        read_volume(path)


def test_missing_and_unknown_files_are_named(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    for name, words in (("none.nrrd", "no such file"), ("notes.txt", "not a volume file")):
        with pytest.raises(InputError, match=words) as caught:
            read_volume(tmp_path / name)
        assert name in str(caught.value)


def test_what_is_no_scalar_volume_is_refused(tmp_path):
    images = {
        "colour": (sitk.GetImageFromArray(np.zeros((2, 3, 4, 3), np.uint8), isVector=True), "components"),
        "time": (sitk.GetImageFromArray(np.zeros((2, 2, 3, 4), np.float32), isVector=False), "4 dimensions"),
        "complex": (sitk.GetImageFromArray(np.zeros((2, 3, 4), np.complex64)), "complex"),
        "holes": (sitk.GetImageFromArray(np.full((2, 3, 4), np.nan, np.float32)), "NaN"),
    }
    for name, (image, words) in images.items():
        path = tmp_path / f"{name}.nrrd"
        sitk.WriteImage(image, str(path))
        with pytest.raises(InputError, match=words) as caught:
            read_volume(path)
        assert str(path) in str(caught.value)


def test_writing_names_what_is_wrong(tmp_path):
    volume = body((1, 4, 4))
    (tmp_path / "folder.nrrd").mkdir()
    for name, words in (("v.png", "format"), ("v.mhd", "format"), ("no/v.nrrd", "folder"), ("folder.nrrd", "folder")):
        with pytest.raises(InputError, match=words):
            write_volume(volume, tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == ["folder.nrrd"]


@pytest.mark.parametrize("suffix", WRITABLE)
@pytest.mark.parametrize("short_bytes", [1, 9, 500, 20000])
def test_full_disk_leaves_the_old_file_alone(tmp_path, suffix, short_bytes):
    noise = np.random.default_rng(0).normal(size=(8, 32, 32)).astype(np.float32)
    source = tmp_path / "source.mha"
    write_volume(Volume(noise, Grid(noise.shape)), source)
    write_volume(Volume(noise, Grid(noise.shape)), tmp_path / f"v{suffix}")
    size = (tmp_path / f"v{suffix}").stat().st_size
    target = tmp_path / f"v{suffix}"
    target.write_bytes(b"old")
    code = (
        "from DiffusionMBIRLib.errors import EngineError\n"
        "from DiffusionMBIRLib.io.volumes import read_volume, write_volume\n"
        f"volume = read_volume({str(source)!r})\n"
        f"try:\n    write_volume(volume, {str(target)!r})\n"
        "except EngineError as error:\n    print(error)\n"
    )
    message = run_with_file_limit(code, size - short_bytes)
    assert str(target) in message
    assert "disk full" in message
    assert target.read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted({"source.mha", target.name})


def test_a_cancelled_write_leaves_nothing_and_stays_cancelled(tmp_path):
    def write() -> None:
        with replacing(tmp_path / "v.bin", ".bin") as temporary:
            temporary.write_bytes(b"half")
            raise Cancelled

    with pytest.raises(Cancelled):
        write()
    assert not list(tmp_path.iterdir())


def test_sample_is_the_attributed_one():
    path = sample_data("ct_chest.nrrd")
    readme = (path.parent / "README.md").read_text()
    assert sha256(path) in readme
    assert path.stat().st_size <= 3_000_000
    assert all(words in readme for words in ("CC BY 3.0", "Research use only".lower(), "TCIA"))
    volume = read_volume(path)
    assert volume.grid.shape == (40, 256, 256)
    assert volume.unit == "HU"
    assert volume.array.dtype == np.int16
    assert np.allclose(volume.grid.spacing_mm, (1.289062, 1.289062, 0.8))
    with pytest.raises(InputError, match=r"ct_chest\.nrrd"):
        sample_data("ct_foot.nrrd")


NATIVE = Path("shared/data/test/ct_rider-pilot-0117_lower-chest_native.nrrd")


def test_sample_is_the_block_mean_of_its_source():
    source = next((p / NATIVE for p in (ROOT, *ROOT.parents) if (p / NATIVE).is_file()), None)
    if source is None:
        pytest.skip("the source volume is not at hand")
    native, sample = read_volume(source), read_volume(sample_data("ct_chest.nrrd"))
    mean = native.coarsened(2)
    assert np.array_equal(np.rint(mean.array[8:48]), sample.array)
    assert np.allclose(mean.grid.spacing_mm, sample.grid.spacing_mm)
    assert np.allclose(np.array(mean.grid.origin_mm) + (0, 0, 8 * 0.8), sample.grid.origin_mm)
