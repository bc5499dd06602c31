"""Echo-planar readouts whose samples were taken on the ramps of their gradient come out as wide as they are."""

from __future__ import annotations

import numpy as np
import pytest

from DiffusionMBIRLib.describe import describe_scan
from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.io.ramps import Ramp, regridding
from DiffusionMBIRLib.io.scans import read_scan
from DiffusionMBIRLib.sensitivity import centred_fft, centred_ifft, root_sum_of_squares
from Testing.engine.kspace_files import (
    COLUMNS,
    IMAGES,
    KSPACE,
    LINES,
    ROWS,
    assert_same,
    header,
    protocol,
    readout,
    refusal,
    twix_block,
    write_ismrmrd,
    write_twix,
)

REVERSE = 1 << 21
UP, FLAT, DOWN, SAMPLES = 120.0, 300.0, 120.0, 100
WIDE = 2 * COLUMNS  # the matrix that is encoded, over twice the field of view


def places(samples=SAMPLES, moment=0.5, delay=None, sine=False) -> tuple[np.ndarray, float]:
    """Where samples lie, in cycles over twice the field of view, by summing up the gradient; and their dwell time."""
    length = UP + FLAT + DOWN
    dwell = (length - 40) / samples
    begin = (length - dwell * samples) / 2 if delay is None else delay
    fine = np.linspace(0, length, 200_001)
    height = np.minimum(np.minimum(fine / UP, 1), (length - fine) / DOWN)
    if sine:
        height = np.sin(np.pi / 2 * height)
    area = np.concatenate([[0], np.cumsum((height[1:] + height[:-1]) / 2)]) * (fine[1] - fine[0])

    def at(times):
        return np.interp(times, fine, area)

    k = at(begin + (np.arange(samples) + moment) * dwell) - area[-1] / 2
    return k * WIDE / (at(begin + dwell * samples) - at(begin)), dwell


def sampled_at(k: np.ndarray) -> np.ndarray:
    """What the coils receive of the known images, (slices, coils, rows, samples), k along the readout."""
    hybrid = centred_fft(IMAGES, axes=(-2,))
    x = np.arange(COLUMNS) - COLUMNS // 2
    return hybrid @ np.exp(-2j * np.pi * np.outer(x, k) / WIDE) / np.sqrt(WIDE)


def epi(k: np.ndarray, lines=range(ROWS), alternate=True, **others) -> list:
    forward, backward = sampled_at(k), sampled_at(-k)
    return [
        readout((backward if alternate and r % 2 else forward)[s, :, r], line=r, where=s, flags=flag, **others)
        for s in range(len(IMAGES))
        for r in lines
        for flag in [REVERSE if alternate and r % 2 else 0]
    ]


def described(trajectory="epi", delay=None, dwell=None, **times) -> str:
    """A header of WIDE encoded columns with Gadgetron's names of the times."""
    values = {"rampUpTime": UP, "flatTopTime": FLAT, "rampDownTime": DOWN, "echoSpacing": 700} | times
    if delay is not None:
        values["acqDelayTime"] = delay
    entry = "<userParameter{0}><name>{1}</name><value>{2:g}</value></userParameter{0}>"
    entries = "".join(entry.format("Long", *pair) for pair in values.items())
    entries += entry.format("Double", "dwellTime", dwell or places()[1])
    text = header(trajectory=trajectory)
    description = f"<trajectoryDescription><identifier>ConventionalEPI</identifier>{entries}</trajectoryDescription>"
    return text.replace("</trajectory>", f"</trajectory>{description}", 1)


@pytest.mark.parametrize("trajectory", ["epi", "cartesian"])
@pytest.mark.parametrize("alternate", [True, False])
def test_ramps_in_the_header(tmp_path, trajectory, alternate):
    k, _ = places()
    path = write_ismrmrd(tmp_path / "scan.h5", epi(k, alternate=alternate), xml=described(trajectory))
    read = read_scan(path)
    assert_same(read.data, KSPACE, 1e-3)
    assert read.grid.spacing_mm == pytest.approx((1.5, 2.0, 5.0))
    remarks = " ".join(describe_scan(read)["remarks"])
    assert "brought to the grid" in remarks
    assert ("ghosts" in remarks) is alternate


@pytest.mark.parametrize("samples", [COLUMNS + 16, 200])
def test_fewer_and_more_samples_than_columns(tmp_path, samples):
    k, dwell = places(samples)
    read = read_scan(write_ismrmrd(tmp_path / "scan.h5", epi(k), xml=described(dwell=dwell)))
    assert_same(read.data, KSPACE, 1e-3)


@pytest.mark.parametrize("moment", [0.0, 1.0])
def test_samples_counted_from_the_other_end_of_their_dwell_time(tmp_path, moment):
    k, _ = places(moment=moment)
    read = read_scan(write_ismrmrd(tmp_path / "scan.h5", epi(k), xml=described()))
    assert_same(read.data, KSPACE, 1e-3)
    assert f"each at {moment:g} of its dwell time" in " ".join(describe_scan(read)["guessed"])


def test_a_delay_that_is_no_delay(tmp_path):
    """Some programs write 0 although the samples lie in the middle of the gradient; some mean what they write."""
    path = tmp_path / "scan.h5"
    read = read_scan(write_ismrmrd(path, epi(places()[0]), xml=described(delay=0)))
    assert_same(read.data, KSPACE, 1e-3)
    assert "in its middle" in " ".join(describe_scan(read)["guessed"])
    late, _ = places(delay=30)
    read = read_scan(write_ismrmrd(path, epi(late), xml=described(delay=30)))
    assert_same(read.data, KSPACE, 1e-3)
    assert describe_scan(read)["guessed"] == []


def test_undersampled_and_trimmed(tmp_path):
    acquired = epi(places()[0], LINES)
    for head, _, _ in acquired:
        head["discard_pre"], head["discard_post"] = 2, 3
    read = read_scan(write_ismrmrd(tmp_path / "scan.h5", acquired, xml=described()))
    mask = np.isin(np.arange(ROWS), LINES)[:, None]
    np.testing.assert_array_equal(read.geometry.mask, np.broadcast_to(mask, (ROWS, COLUMNS)))
    assert np.abs(read.data - KSPACE * mask).max() < 0.02 * np.abs(KSPACE).max()


def test_samples_of_the_flat_top_are_even_by_themselves(tmp_path):
    k = np.arange(WIDE) - WIDE // 2
    xml = described(dwell=FLAT / WIDE)
    read = read_scan(write_ismrmrd(tmp_path / "scan.h5", epi(k, alternate=False), xml=xml))
    assert_same(read.data, KSPACE, 1e-4)
    assert describe_scan(read)["remarks"] == []


@pytest.mark.parametrize("unit", [1.0, 1 / WIDE, 2 * np.pi / WIDE, 1000 / (WIDE * 1.5)])
def test_ramps_in_stored_trajectories(tmp_path, unit):
    k, _ = places()
    ky = (np.arange(ROWS) - ROWS // 2) * {1.0: 1.0, 1 / WIDE: 1 / ROWS, 2 * np.pi / WIDE: 2 * np.pi / ROWS}.get(
        unit, 10.4
    )
    acquired = []
    for s in range(len(IMAGES)):
        for r in range(ROWS):
            way = -k if r % 2 else k
            path = np.stack([way * unit, np.full(SAMPLES, ky[r])], axis=1)
            acquired.append(readout(sampled_at(way)[s, :, r], line=r, where=s, traj=path))
    read = read_scan(write_ismrmrd(tmp_path / "scan.h5", acquired, xml=header(trajectory="epi")))
    assert_same(read.data, KSPACE, 1e-3)
    assert "from the trajectories" in " ".join(describe_scan(read)["remarks"])


def test_directions_by_trajectories_against_flags(tmp_path):
    k = (np.arange(COLUMNS) - COLUMNS // 2) / COLUMNS
    acquired = []
    for r in range(ROWS):
        turned, line = r % 2 == 1, KSPACE[0, :, r]
        path = np.stack([k[::-1] if turned else k, np.full(COLUMNS, (r - ROWS // 2) / ROWS)], axis=1)
        acquired.append(readout(line[:, ::-1] if turned else line, line=r, traj=path))
    read = read_scan(write_ismrmrd(tmp_path / "scan.h5", acquired, xml=header(x=COLUMNS)))
    assert_same(read.data, KSPACE[:1])
    assert "contradict their flags" in describe_scan(read)["remarks"][0]


def test_what_cannot_be_regridded_is_refused(tmp_path):
    path, k = tmp_path / "scan.h5", places()[0]
    assert "only Cartesian" in refusal(write_ismrmrd(path, epi(k), xml=header(trajectory="epi")))
    assert "its gradient only" in refusal(write_ismrmrd(path, epi(k), xml=described(dwell=20)))
    few, dwell = places(COLUMNS // 2)
    assert "do not suffice" in refusal(write_ismrmrd(path, epi(few), xml=described(dwell=dwell)))
    with pytest.raises(InputError, match="not positive"):
        Ramp(1, 2, 1, 0).path(8, 8)
    with pytest.raises(InputError, match="do not suffice"):
        regridding(np.zeros(50), 40, 40)


@pytest.mark.parametrize("mode", [2, 4])
def test_siemens(tmp_path, mode):
    pytest.importorskip("twixtools")
    k, dwell = places(delay=20, sine=mode == 4)
    times = {"Mode": mode, "RampupTime": 120, "FlattopTime": 300, "RampdownTime": 120, "DelaySamplesTime": 20}
    text = "".join(f'<ParamLong."alRegrid{key}">  {{ {value} {value} }}\n' for key, value in times.items())
    text += f'<ParamDouble."aflRegridADCDuration">  {{ <Precision> 6 {dwell * SAMPLES} }}\n' + protocol()
    forward, backward = sampled_at(k), sampled_at(-k)
    blocks = [
        twix_block((backward if r % 2 else forward)[s, :, r], line=r, where=s, flags=["REFLECT"] if r % 2 else [])
        for s in range(len(IMAGES))
        for r in range(ROWS)
    ]
    read = read_scan(write_twix(tmp_path / "meas.dat", blocks, text))
    assert_same(read.data, KSPACE, 1e-3)
    image = root_sum_of_squares(centred_ifft(read.data))
    truth = root_sum_of_squares(IMAGES)
    assert np.abs(image - truth).max() < 0.01 * truth.max()
    even = read_scan(write_twix(tmp_path / "meas.dat", blocks, text.replace(f"{{ {mode} {mode} }}", "{ 1 1 }")))
    assert "no whole factor of oversampling" in " ".join(describe_scan(even)["guessed"])
