"""Headers that contradict their readouts: mended and said, or refused in one line that tells what to do."""

from __future__ import annotations

import numpy as np
import pytest

from DiffusionMBIRLib.describe import describe_scan
from DiffusionMBIRLib.io.scans import read_scan
from Testing.engine.kspace_files import (
    COLUMNS,
    IMAGES,
    KSPACE,
    ROWS,
    SLICES,
    assert_same,
    coil_images,
    header,
    kspace_of,
    oversampled,
    protocol,
    readout,
    readouts,
    refusal,
    twix_block,
    twix_lines,
    write_ismrmrd,
    write_twix,
)

REVERSE = 1 << 21
CUT = 8  # samples that an echo off the middle lacks


def guesses(read) -> str:
    return " ".join(describe_scan(read)["guessed"])


# --- matrix


@pytest.mark.parametrize("slices", [1, 2, 3])
@pytest.mark.parametrize("announced", [2, 3])
def test_partitions_that_are_not_there(tmp_path, slices, announced):
    xml = header(x=COLUMNS, z=announced, lastz=0, cz=0)
    read = read_scan(write_ismrmrd(tmp_path / "scan.h5", readouts(KSPACE[:slices]), xml=xml))
    assert_same(read.data, KSPACE[:slices])
    assert f"the header's {announced} are none" in guesses(read)
    # The field of view of z is a slice's thickness, unless slices were counted as partitions.
    thick = announced * 4.0 / (slices if slices == announced else 1)
    assert read.grid.spacing_mm == pytest.approx((1.5, 2.0, 5.0 if slices > 1 else thick))


def test_no_limits_and_one_partition(tmp_path):
    xml = header(x=COLUMNS, z=2)
    bare = xml[: xml.index("<encodingLimits>")] + xml[xml.index("</encodingLimits>") + len("</encodingLimits>") :]
    read = read_scan(write_ismrmrd(tmp_path / "scan.h5", readouts(KSPACE), xml=bare))
    assert_same(read.data, KSPACE)
    cut = write_ismrmrd(tmp_path / "scan.h5", readouts(KSPACE[:1]), xml=header(x=COLUMNS, z=4))
    assert "only partition 0 of 4 is there" in refusal(cut)


def test_sizes_that_are_nearly_whole(tmp_path):
    path, lines = tmp_path / "scan.h5", readouts(KSPACE)
    whole = header(x=COLUMNS)

    def lines_of(value: str) -> str:
        return whole.replace(f"<y>{ROWS}</y>", f"<y>{value}</y>", 1)

    read = read_scan(write_ismrmrd(path, lines, xml=lines_of("47.9996")))
    assert_same(read.data, KSPACE)
    assert "47.9996 means 48" in guesses(read)
    assert "a whole number is needed" in refusal(write_ismrmrd(path, lines, xml=lines_of("47.6")))
    for value in ("nan", "inf", "-3", "1e9", "many"):
        assert "a number is needed" in refusal(write_ismrmrd(path, lines, xml=lines_of(value)))


# --- oversampling


@pytest.mark.parametrize("field_mm", [120.0, 0.0])
def test_oversampling_that_is_gone(tmp_path, field_mm):
    xml = header(fx=field_mm, frx=field_mm / 2)
    read = read_scan(write_ismrmrd(tmp_path / "scan.h5", readouts(KSPACE), xml=xml))
    assert_same(read.data, KSPACE)
    assert read.geometry.acceleration == 1
    assert read.grid.spacing_mm[0] == pytest.approx(1.5 if field_mm else 1.0)
    assert "oversampling of the readout is removed already" in guesses(read)


def test_oversampling_that_is_gone_from_the_matrix_too(tmp_path):
    xml = header(x=COLUMNS, rx=COLUMNS, fx=120, frx=60)  # the fields of view were left as they were
    read = read_scan(write_ismrmrd(tmp_path / "scan.h5", readouts(KSPACE), xml=xml))
    assert_same(read.data, KSPACE)
    assert read.grid.spacing_mm[0] == pytest.approx(1.5)
    # An image on a finer grid along both axes is none of that: half the field of view is wanted.
    finer = (
        header(x=2 * COLUMNS, rx=2 * COLUMNS, fx=120, frx=60)
        .replace("<y>48</y>", "<y>96</y>")
        .replace("<y>96</y>", "<y>48</y>", 1)
    )
    read = read_scan(write_ismrmrd(tmp_path / "scan.h5", readouts(oversampled(IMAGES)), xml=finer))
    assert_same(read.data, KSPACE)


def test_samples_that_fit_no_matrix(tmp_path):
    path = tmp_path / "scan.h5"
    odd = readouts(kspace_of(coil_images(1, 4, ROWS, 56)))
    assert "readouts of 56 samples around their middle do not fit" in refusal(write_ismrmrd(path, odd))
    # An echo off the middle is a partial one, as ever.
    partial = [readout(KSPACE[0, :, r, CUT:], line=r, center_sample=COLUMNS // 2 - CUT) for r in range(ROWS)]
    assert read_scan(write_ismrmrd(path, partial, xml=header(x=COLUMNS))).geometry.acceleration == 1.25


# --- orientation and place


THREE_PLANES = (np.eye(3), np.roll(np.eye(3), 1, axis=0), np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]]))


def placed(positions, planes=None) -> list:
    acquired = []
    for s, position in enumerate(positions):
        read, phase, normal = (np.eye(3) if planes is None else planes[s]).astype(float)
        for r in range(ROWS):
            axes = {"read_dir": read, "phase_dir": phase, "slice_dir": normal}
            acquired.append(readout(KSPACE[s % SLICES, :, r], line=r, where=s, position=position, **axes))
    return acquired


def test_slices_of_different_orientation(tmp_path):
    path, xml = tmp_path / "scan.h5", header(x=COLUMNS)
    localizer = placed([(0, 0, 0)] * 3, THREE_PLANES)
    assert "slice 1 has another orientation than slice 0" in refusal(write_ismrmrd(path, localizer, xml=xml))
    turned = placed([(0, 0, 5 * n) for n in range(3)], [np.eye(3), np.eye(3), np.diag([-1, -1, 1])])
    assert "slice 2 has another orientation" in refusal(write_ismrmrd(path, turned, xml=xml))
    blades = placed([(0, 0, 0)])
    blades[5][0]["read_dir"], blades[5][0]["phase_dir"] = (0, 1, 0), (-1, 0, 0)
    assert "changes from readout to readout" in refusal(write_ismrmrd(path, blades, xml=xml))
    same = placed([(0, 5 * n, 0) for n in (2, 0, 1)], [THREE_PLANES[2]] * 3)
    read = read_scan(write_ismrmrd(path, same, xml=xml))
    assert_same(read.data, KSPACE[[0, 2, 1]])  # the normal points down


@pytest.mark.parametrize(
    ("heights", "said"),
    [
        ((0, 5, 12), "irregular gaps between slices (1 x 7 mm, 1 x 5 mm; the widest between slices 1 and 2)"),
        ((0, 5, 10, 20), "the widest between slices 2 and 3"),
        ((0, 5, 5), "slices 1 and 2 lie at the same position"),
    ],
)
def test_gaps_that_are_irregular(tmp_path, heights, said):
    path = tmp_path / "scan.h5"
    text = refusal(write_ismrmrd(path, placed([(1, 2, z) for z in heights]), xml=header(x=COLUMNS)))
    assert said.split(" (")[0] in text
    if "the widest" in said:
        assert said[said.index("the widest") :].rstrip(")") in text


def test_slices_shifted_within_their_plane(tmp_path):
    path, xml = tmp_path / "scan.h5", header(x=COLUMNS)
    aside = placed([(3 * n, 0, 5 * n) for n in range(3)])
    assert "shifted against each other by up to 6.0 mm" in refusal(write_ismrmrd(path, aside, xml=xml))
    untold = read_scan(write_ismrmrd(path, placed([(0, 0, 0)] * 3), xml=xml))
    assert "positions are not told" in guesses(untold)


def test_siemens_orientation_and_gaps(tmp_path):
    pytest.importorskip("twixtools")
    path, data = tmp_path / "meas.dat", oversampled(IMAGES)
    blocks = twix_lines(data[:1]) + [
        twix_block(data[1, :, r], line=r, where=1, turned=(np.sqrt(0.5), np.sqrt(0.5), 0, 0)) for r in range(ROWS)
    ]
    assert "slice 1 has another orientation" in refusal(write_twix(path, blocks))
    gap = [twix_block(data[s, :, r], line=r, where=where) for s, where in enumerate((0, 1, 3)) for r in range(ROWS)]
    assert "irregular gaps" in refusal(write_twix(path, gap))


# --- reversed readouts


def back_and_forth(centre_of_reversed: int, line_of, cut: int = CUT) -> list:
    """Every second line backwards; what is cut off lies before the echo of the forward ones."""
    made = []
    for r in range(ROWS):
        samples = KSPACE[0, :, r, cut:]
        if r % 2:
            made.append(line_of(samples[:, ::-1], r, centre_of_reversed, True))
        else:
            made.append(line_of(samples, r, COLUMNS // 2 - cut, False))
    return made


@pytest.mark.parametrize("cut", [CUT, 0, 5])
@pytest.mark.parametrize("meaning", ["as measured", "Siemens", "once turned"])
@pytest.mark.parametrize("siemens", [False, True])
def test_reversed_echoes_off_the_middle(tmp_path, siemens, meaning, cut):
    count, centre = COLUMNS - cut, COLUMNS // 2 - cut
    mark = {"as measured": count - 1 - centre, "Siemens": count - centre, "once turned": centre}[meaning]
    if siemens:
        pytest.importorskip("twixtools")

        def block(samples, r, at, turned):
            return twix_block(samples, line=r, centre=at, flags=["REFLECT"] if turned else [])

        path = write_twix(tmp_path / "meas.dat", back_and_forth(mark, block, cut), protocol(base=COLUMNS))
    else:

        def line(samples, r, at, turned):
            return readout(samples, line=r, center_sample=at, flags=REVERSE if turned else 0)

        path = write_ismrmrd(tmp_path / "scan.h5", back_and_forth(mark, line, cut), xml=header(x=COLUMNS))
    read = read_scan(path)
    assert_same(read.data, np.where(np.arange(COLUMNS) >= cut, KSPACE[:1], 0))
    assert ("their strongest samples" in guesses(read)) is (meaning != "as measured" and cut > 0)


def test_reversed_lines_alone_and_trimmed(tmp_path):
    backward = [
        readout(KSPACE[0, :, r, ::-1], line=r, flags=REVERSE, center_sample=COLUMNS // 2 - 1, discard_pre=3)
        for r in range(ROWS)
    ]
    read = read_scan(write_ismrmrd(tmp_path / "scan.h5", backward, xml=header(x=COLUMNS)))
    assert_same(read.data, np.where(np.arange(COLUMNS) < COLUMNS - 3, KSPACE[:1], 0))


# --- Pulseq on Siemens


def test_protocols_that_pulseq_left_alone(tmp_path):
    pytest.importorskip("twixtools")
    path, data = tmp_path / "meas.dat", oversampled(IMAGES[:1])
    name = "sKSpace.lBaseResolution"
    text = protocol().replace(name, f'tSequenceFileName = "%CustomerSeq%\\\\pulseq"\n{name}', 1)
    read = read_scan(write_twix(path, twix_lines(data), text))
    assert_same(read.data, KSPACE[:1])
    assert "Pulseq leaves the protocol as it was" in guesses(read)
    odd = text.replace(f"{name} = {COLUMNS}", f"{name} = 32")
    assert "was measured by Pulseq" in refusal(write_twix(path, twix_lines(data), odd))
