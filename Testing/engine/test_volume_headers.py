"""Headers of volume files: what they may name, what they announce, and values that ITK would make up."""

from __future__ import annotations

import gzip
import os
import struct

import numpy as np
import pytest

from DiffusionMBIRLib import cli
from DiffusionMBIRLib.errors import EngineError, InputError
from DiffusionMBIRLib.io.volumes import read_volume
from Testing.engine.helpers import body

VALUES = (np.arange(6 * 8 * 8).reshape(6, 8, 8) - 100).astype(np.int16)
META = (
    "ObjectType = Image\nNDims = 3\nDimSize = {size}\nElementType = MET_SHORT\nElementSpacing = {spacing}\n"
    "{more}ElementDataFile = {data}\n"
)
NRRD = "NRRD0004\ntype: short\ndimension: 3\nsizes: {size}\nspacings: {spacing}\nendian: little\nencoding: {encoding}\n"


def meta(data="LOCAL", *, size="8 8 6", spacing="1 1.5 2", more="") -> bytes:
    return META.format(size=size, spacing=spacing, data=data, more=more).encode()


def nrrd(data="", *, size="8 8 6", spacing="1 1.5 2", encoding="raw") -> bytes:
    text = NRRD.format(size=size, spacing=spacing, encoding=encoding)
    return (text + (f"data file: {data}\n" if data else "\n")).encode()


def nifti(
    values=VALUES, *, srow=((-1, 0, 0, 5), (0, -1, 0, 6), (0, 0, 2, 7)), spacing=(1, 1, 2), scaling=(1, 0)
) -> bytes:
    header = bytearray(352)
    code, bits = {"i2": (4, 16), "f4": (16, 32), "f8": (64, 64)}[values.dtype.str[1:]]
    for kind, at, numbers in (
        ("<i", 0, [348]),
        ("<8h", 40, [3, *values.shape[::-1], 1, 1, 1, 1]),
        ("<2h", 70, [code, bits]),
        ("<8f", 76, [1, *spacing, 1, 1, 1, 1]),
        ("<3f", 108, [352, *scaling]),
        ("<2h", 252, [0, 1]),
        ("<12f", 280, np.ravel(srow)),
    ):
        struct.pack_into(kind, header, at, *numbers)
    header[123], header[344:348] = 2, b"n+1\0"
    return bytes(header) + values.tobytes()


def refusal(path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises((InputError, EngineError)) as caught:
        read_volume(path)
    text = str(caught.value)
    assert text.startswith(str(path))
    assert "\n" not in text
    return text


@pytest.mark.parametrize("packed", [False, True])
def test_nifti_that_itk_would_mend_in_silence(tmp_path, packed):
    path = tmp_path / ("v.nii.gz" if packed else "v.nii")

    def said(**change) -> str:
        content = nifti(**change)
        return refusal(path, gzip.compress(content) if packed else content)

    for dtype in (np.float32, np.float64):
        holes = VALUES.astype(dtype)
        holes[2, 3, 4], holes[-1, -1, -1] = np.nan, np.inf
        assert "2 of 384 values are NaN" in said(values=holes)
    assert "pixdim" in said(spacing=(0, 1, 2))
    assert "pixdim" in said(spacing=(1, float("nan"), 2))
    assert "scl_slope" in said(scaling=(float("nan"), 0))
    assert "scl_slope" in said(scaling=(0, -1024))
    assert "NaN" in said(srow=((float("nan"), 0, 0, 5), (0, -1, 0, 6), (0, 0, 2, 7)))
    assert "sheared" in said(srow=((-1, 0.3, 0, 5), (0, -1, 0, 6), (0, 0, 2, 7)))


def test_sound_nifti(tmp_path):
    path = tmp_path / "v.nii"
    path.write_bytes(nifti(scaling=(2, -1024)))
    np.testing.assert_array_equal(read_volume(path).array, VALUES * 2.0 - 1024)
    path.write_bytes(nifti(scaling=(0, 0)))  # no scaling, by the definition
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, VALUES)
    assert "remarks" not in volume.metadata


def test_slightly_skewed_nifti_is_made_orthogonal(tmp_path):
    path = tmp_path / "v.nii"
    path.write_bytes(nifti(srow=((-1, 0.004, 0, 5), (0, -1, 0, 6), (0, 0, 2, 7))))
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, VALUES)
    np.testing.assert_allclose(volume.grid.matrix, [[1, 0.002, 0], [-0.002, 1, 0], [0, 0, 1]], atol=1e-5)
    assert "0.23 degrees" in volume.metadata["remarks"]
    assert "ITK_NIFTI_SFORM_PERMISSIVE" not in os.environ
    path.write_bytes(nifti(srow=((-3, 0, 0, 5), (0, -3, 0, 6), (0, 0, 2, 7))))
    assert "srow says voxels of 3 x 3 x 2 mm" in read_volume(path).metadata["remarks"]


@pytest.mark.parametrize("kind", ["mhd", "nhdr"])
def test_data_beside_the_header(tmp_path, kind):
    header = meta if kind == "mhd" else nrrd
    (tmp_path / "v.raw").write_bytes(VALUES.tobytes())
    for k, plane in enumerate(VALUES):
        (tmp_path / f"p{k:02}.raw").write_bytes(plane.tobytes())
    planes = "\n".join(f"p{k:02}.raw" for k in range(6))
    path = tmp_path / f"v.{kind}"
    for data in ("v.raw", "./v.raw", "p%02d.raw 0 5 1", f"LIST\n{planes}"):
        path.write_bytes(header(data))
        volume = read_volume(path)
        np.testing.assert_array_equal(volume.array, VALUES)
        assert volume.grid.spacing_mm == (1.0, 1.5, 2.0)


@pytest.mark.parametrize("kind", ["mhd", "nhdr", "mha", "nrrd"])
def test_data_elsewhere_are_not_read(tmp_path, kind, capfd):
    header = meta if kind.startswith("m") else nrrd
    inside = tmp_path / "case"
    inside.mkdir()
    for place in (tmp_path, inside):
        (place / "v.raw").write_bytes(VALUES.tobytes())
    path = inside / f"v.{kind}"
    for data in (str(tmp_path / "v.raw"), "../v.raw", "..\\v.raw", "a/../../v.raw", "C:\\v.raw", "LIST\n../v.raw"):
        assert "lies elsewhere" in refusal(path, header(data))
    for data in ("%s%n 1 6 1", "%s", "p%d%d.raw 1 6 1", "%n.raw 1 6 1", "%999999d.raw 1 6 1", "p%d.raw 1 x 1"):
        assert "data file" in refusal(path, header(data))
    assert "w.raw is not beside it; copy both" in refusal(path, header("w.raw"))
    if header is meta:
        hidden = meta("/etc/passwd").replace(b"\nElementDataFile", b" ElementDataFile")
        assert "elsewhere" in refusal(path, hidden)
        assert "elsewhere" in refusal(path, b"Comment = ElementDataFile = LOCAL\n" + meta("/etc/passwd"))
        assert "2 data files for 6 slices" in refusal(path, meta("LIST\nv.raw\nv.raw"))
    if hasattr(os, "mkfifo"):
        os.mkfifo(inside / "pipe.raw")
        assert "not beside it" in refusal(path, header("pipe.raw"))
    assert capfd.readouterr() == ("", "")


def test_more_announced_than_there_is(tmp_path, capfd):
    large = "1024 1024 2048"
    packed = "CompressedData = True\n"
    for name, content in {
        "a.nrrd": nrrd(size=large, encoding="gzip") + gzip.compress(b"few"),
        "b.nrrd": nrrd(size=large) + b"few",
        "c.mha": meta(size=large) + b"few",
        "d.mha": meta(size=large, more=packed) + b"few",
        "e.mha": meta() + VALUES.tobytes()[:-1],
        "f.nii": nifti()[:-1],
        "g.nrrd": nrrd(size="65535 65535 65535", encoding="bzip2") + b"few",
        "h.nrrd": nrrd(size=large, encoding="ascii") + b"1 2 3",
        "i.mha": meta(size="8 8", more=packed),
        "j.mha": meta().replace(b"MET_SHORT", b"MET_STRING"),
        "k.mha": b"NDims = 3\nElementDataFile = LOCAL\n",
    }.items():
        refusal(tmp_path / name, content)
    assert capfd.readouterr() == ("", "")  # the readers' own complaints would be second lines


@pytest.mark.parametrize("spacing", ["0 1 2", "nan 1 2", "1 inf 2", "1e-3 1e3 1"])
def test_spacings_without_sense(tmp_path, spacing):
    assert "spacing" in refusal(tmp_path / "v.mha", meta(spacing=spacing) + VALUES.tobytes()).lower()
    assert "spacing" in refusal(tmp_path / "v.nrrd", nrrd(spacing=spacing) + VALUES.tobytes())


def test_values_beyond_32_bits(tmp_path):
    assert "range of 32 bits" in refusal(tmp_path / "v.nii", nifti(VALUES * 1e300))


def test_the_readers_own_reason_is_told(tmp_path):
    assert "valid dimension" in refusal(tmp_path / "v.nrrd", b"NRRD0004\ntype: short\nsizes: 1 1 1\n\n1234")


@pytest.mark.parametrize("values", ["stored", "zero to one", "attenuation"])
def test_values_that_are_no_hu_are_told_everywhere(tmp_path, capsys, values):
    import DiffusionMBIRLib as mbir

    volume = body((3, 32, 32))
    hu = volume.array.astype(np.float32)
    shift, scale = {"stored": (1024, 1.0), "zero to one": (1000, 1 / 2000), "attenuation": (1000, 2e-5)}[values]
    wrong = mbir.Volume(((hu + shift) * scale).astype(np.float32), volume.grid)
    wrong.save(tmp_path / "v.nrrd")
    assert cli.main(["info", str(tmp_path / "v.nrrd")]) == 0
    assert (
        cli.main(["simulate", str(tmp_path / "v.nrrd"), "--views", "4", "-o", str(tmp_path / "s.h5"), "--quiet"]) == 0
    )
    assert cli.main(["evaluate", str(tmp_path / "v.nrrd"), str(tmp_path / "v.nrrd")]) == 0
    assert capsys.readouterr().out.count("are these HU?") >= 3
    assert "are these HU?" in str(mbir.simulate(wrong, views=4).provenance["remarks"])
    assert "remarks" not in mbir.simulate(volume, views=4).provenance
    assert "remarks" not in mbir.evaluate(volume, volume)
    assert cli.main(["train", str(tmp_path / "v.nrrd"), "-o", str(tmp_path / "t"), "--quiet"]) == 2
    assert "are these HU?" in capsys.readouterr().err
