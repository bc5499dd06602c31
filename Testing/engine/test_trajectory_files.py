"""K-space along trajectories as files bring it: units, orders of axes, delays, and what is refused."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from DiffusionMBIRLib.describe import describe_scan
from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.geometry.paths import echo_planar, radial, spiral, spoke_angles
from DiffusionMBIRLib.io.scans import read_scan
from DiffusionMBIRLib.io.trajectory_units import AXES, UNITS, classified, factors, in_order
from DiffusionMBIRLib.operators.gridding import exact_samples
from DiffusionMBIRLib.preparation.delays import delayed, estimate_delays, parsed_delays
from DiffusionMBIRLib.preparation.echo_lines import aligned_echoes
from DiffusionMBIRLib.scans import KSpace, TrajectoryKSpace, same_scan
from Testing.engine.kspace_files import protocol, readout, twix_block, write_ismrmrd, write_twix

SIZE, COILS = 32, 3
SPOKES = radial(spoke_angles(24), 2 * SIZE)
XML = """<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding><encodedSpace><matrixSize><x>64</x><y>32</y><z>1</z>
</matrixSize><fieldOfView_mm><x>128</x><y>64</y><z>5</z></fieldOfView_mm></encodedSpace><reconSpace><matrixSize><x>32</x>
<y>32</y><z>1</z></matrixSize><fieldOfView_mm><x>64</x><y>64</y><z>5</z></fieldOfView_mm></reconSpace>
<trajectory>radial</trajectory></encoding></ismrmrdHeader>"""


def images(slices: int = 1) -> torch.Tensor:
    y, x = np.mgrid[:SIZE, :SIZE] / (SIZE / 2) - 1
    made = []
    for k in range(slices):
        body = (np.hypot(x * 1.2, y) < 0.6) + ((np.hypot(x - 0.2, y + 0.25 - 0.1 * k) < 0.15) * 1.0)
        made.append([body * np.exp(-((x - a) ** 2) - (y - b) ** 2 + 0.3j * a) for a, b in ((1, 0), (-1, 0.5), (0, -1))])
    return torch.from_numpy(np.array(made))


def sampled(points: np.ndarray = SPOKES, slices: int = 1) -> np.ndarray:
    """complex64 (slices, coils, readouts, samples)."""
    transform = exact_samples(points, (SIZE, SIZE))
    return np.stack([transform(seen).reshape(COILS, *points.shape[:2]).numpy() for seen in images(slices)]).astype("c8")


def refusal(*arguments, **told) -> str:
    with pytest.raises(InputError) as caught:
        read_scan(*arguments, **told)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def in_cycles(scan: KSpace) -> np.ndarray:
    """The trajectory in cycles of the wanted field of view."""
    assert isinstance(scan, TrajectoryKSpace)
    return scan.geometry.points * (SIZE / scan.geometry.matrix[1])


# --- units


@pytest.mark.parametrize("unit", UNITS)
def test_units_are_told_apart_by_the_largest_k(unit):
    largest = SIZE / 2 / factors(SIZE, 220.0)[unit]
    assert classified(largest, SIZE, 220.0, "scan") == unit
    assert classified(largest * 1.03, SIZE, 220.0, "scan") == unit


def test_units_that_two_fit_or_none_are_refused():
    with pytest.raises(InputError, match="fits cycles/fov as well as 1/m; give --trajectory-unit"):
        classified(SIZE / 2, SIZE, 1000.0, "scan")
    with pytest.raises(
        InputError, match="the largest .k. of its trajectory is 5, .* in no unit; give --trajectory-unit"
    ):
        classified(5.0, SIZE, 220.0, "scan")


# --- ISMRMRD


def acquisitions(points: np.ndarray = SPOKES, factor: float = 1.0, slices: int = 1, **others) -> list:
    data = sampled(points, slices)
    return [
        readout(data[s, :, n], line=n, where=s, traj=points[n] * factor, **others)
        for s in range(slices)
        for n in range(len(points))
    ]


@pytest.mark.parametrize("unit", ["cycles/fov", "cycles/pixel", "rad/pixel"])
def test_ismrmrd(tmp_path, unit):
    factor = 1 / factors(SIZE, 0.0)[unit]
    read = read_scan(write_ismrmrd(tmp_path / "scan.h5", acquisitions(factor=factor, slices=2), xml=XML))
    assert read.result_grid.shape == (2, SIZE, SIZE)
    assert read.grid.shape == (2, 40, 40)
    assert read.grid.spacing_mm == pytest.approx((2, 2, 5))
    np.testing.assert_allclose(in_cycles(read), SPOKES, atol=1e-4)
    np.testing.assert_allclose(read.data, sampled(slices=2), rtol=1e-5)
    told = describe_scan(read)
    assert f"the trajectory is in {unit}" in " ".join(told["guessed"])
    assert told["readout_ms"] == pytest.approx(64 * 5 / 1000)
    read.save(tmp_path / "ours.h5")
    assert same_scan(replace(read_scan(tmp_path / "ours.h5"), name=read.name), read)


def test_ismrmrd_leaves_out_what_is_to_be_discarded(tmp_path):
    wide = np.concatenate([SPOKES[:, :1] + 1e3, SPOKES, SPOKES[:, -2:] + 1e3], axis=1)
    data = np.pad(sampled()[0], ((0, 0), (0, 0), (1, 2)), constant_values=99)
    lines = [readout(data[:, n], line=n, traj=wide[n], discard_pre=1, discard_post=2) for n in range(len(wide))]
    read = read_scan(write_ismrmrd(tmp_path / "scan.h5", lines, xml=XML))
    np.testing.assert_allclose(read.data, sampled(), rtol=1e-5)


def test_ismrmrd_stack_of_stars(tmp_path):
    planes = sampled(slices=2)
    along = (planes[:1] + planes[1:] * np.array([1, -1])[:, None, None, None]) / np.sqrt(
        2
    )  # centred, of two partitions
    lines = [readout(along[1 - p, :, n], line=n, part=p, traj=SPOKES[n]) for p in range(2) for n in range(len(SPOKES))]
    read = read_scan(write_ismrmrd(tmp_path / "scan.h5", lines, xml=XML.replace("<z>1<", "<z>2<")))
    assert read.data.shape[0] == 2
    energy = [float(np.abs(read.data - planes[order]).max()) for order in ([0, 1], [1, 0])]
    assert min(energy) < 1e-4 * np.abs(planes).max()


def test_ismrmrd_refusals(tmp_path):
    path = tmp_path / "scan.h5"

    def refused(lines, xml=XML, **told):
        return refusal(write_ismrmrd(path, lines, xml=xml), **told)

    assert "in no unit" in refused(acquisitions(factor=3.0))
    assert "zero everywhere" in refused(acquisitions(factor=0.0))
    assert "3072 of 3072 points of the trajectory are NaN" in refused(acquisitions(factor=np.nan))
    assert "have no trajectory; write traj" in refused([readout(sampled()[0][:, n], line=n) for n in range(4)])
    turned = acquisitions(slices=1) + [
        readout(sampled()[0][:, n], line=n, where=1, traj=-SPOKES[n]) for n in range(len(SPOKES))
    ]
    assert "its trajectory changes from slice to slice" in refused(turned)
    assert "cannot be shared by 2 slices" in refused(acquisitions(slices=2)[:-1])
    assert "trajectory x.npy: the file brings its own" in refused(acquisitions(), trajectory="x.npy")
    assert "reaches 32 times the edge" in refused(acquisitions(), trajectory_unit="cycles/pixel")
    assert "strongest at sample" in refused(_off_centre())


def _off_centre() -> list:
    data = np.roll(sampled()[0], 20, axis=-1)
    return [readout(data[:, n], line=n, traj=SPOKES[n]) for n in range(len(SPOKES))]


# --- arrays


@pytest.mark.parametrize("order", [(2, 1, 0), (0, 1, 2), (1, 0, 2)])
@pytest.mark.parametrize("form", ["complex", "last", "first"])
def test_arrays_in_any_order(tmp_path, order, form):
    data = sampled()[0]
    np.save(tmp_path / "scan.npy", data.transpose(order))
    turned = SPOKES if form != "complex" else SPOKES[..., 0] + 1j * SPOKES[..., 1]
    np.save(tmp_path / "traj.npy", {"complex": turned.T, "last": turned, "first": np.moveaxis(turned, -1, 0)}[form])
    told = {"trajectory": "traj.npy", "fov_mm": 64.0, "matrix": SIZE, "trajectory_unit": "cycles/fov"}
    read = read_scan(tmp_path / "scan.npy", **told)
    np.testing.assert_allclose(read.data[0], data)
    np.testing.assert_allclose(in_cycles(read), SPOKES, atol=1e-9)
    assert read.result_grid.spacing_mm[:2] == pytest.approx((2, 2))


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (2, 1, 0)])
def test_axes_of_one_length_are_told_by_the_energy(tmp_path, order):
    spokes = radial(spoke_angles(2 * SIZE), 2 * SIZE)
    data = sampled(spokes)[0]
    np.save(tmp_path / "scan.npy", data.transpose(order))
    np.save(tmp_path / "traj.npy", spokes)
    told = {"trajectory": "traj.npy", "matrix": SIZE}
    read = read_scan(tmp_path / "scan.npy", **told)
    np.testing.assert_allclose(read.data[0], data)
    assert "holds the samples and axis" in " ".join(describe_scan(read)["guessed"])
    noise = np.random.default_rng(0).standard_normal((*data.shape, 2)) @ [1, 1j]
    np.save(tmp_path / "scan.npy", noise.transpose(order))
    assert "hold the samples and the readouts cannot be told" in refusal(tmp_path / "scan.npy", **told)


@pytest.mark.parametrize("axes", AXES)
def test_coordinates_in_any_order_and_sign(tmp_path, axes):
    written = SPOKES if "xy" in axes.replace("-", "") else SPOKES[..., ::-1]
    signs = [-1 if part.startswith("-") else 1 for part in re.findall("-?[xy]", axes)]
    np.save(tmp_path / "scan.npy", sampled()[0])
    np.save(tmp_path / "traj.npy", written * signs)
    told = {"trajectory": "traj.npy", "matrix": SIZE, "trajectory_unit": "cycles/fov"}
    read = read_scan(tmp_path / "scan.npy", **told, trajectory_axes=axes)
    np.testing.assert_allclose(in_cycles(read), SPOKES, atol=1e-9)
    assert f"taken as {axes}" in " ".join(read.notes)
    untold = describe_scan(read_scan(tmp_path / "scan.npy", **told))
    assert "if the image is transposed or mirrored" in " ".join(untold["guessed"])


def test_swapped_coordinates_of_an_image_that_is_no_square_are_refused(tmp_path):
    long = XML.replace("<y>32</y>", "<y>24</y>").replace("<y>64</y>", "<y>48</y>")
    points = SPOKES * [1, 0.75]
    swapped = points[..., ::-1]

    def write(these: np.ndarray):
        lines = [readout(sampled()[0][:, n], line=n, traj=these[n]) for n in range(len(these))]
        return write_ismrmrd(tmp_path / "scan.h5", lines, xml=long)

    assert "are the coordinates swapped? give --trajectory-axes yx" in refusal(write(swapped), delays="off")
    read = read_scan(write(swapped), trajectory_axes="yx", delays="off")
    np.testing.assert_allclose(read.geometry.points, read_scan(write(points), delays="off").geometry.points, atol=1e-5)
    with pytest.raises(InputError, match="trajectory_axes 'up' is not known"):
        in_order(points, "up", "scan")


def test_per_metre_needs_a_field_of_view_and_finds_the_matrix(tmp_path):
    np.save(tmp_path / "scan.npy", sampled()[0])
    np.save(tmp_path / "traj.npy", SPOKES / 0.064)
    told = {"trajectory": str(tmp_path / "traj.npy"), "trajectory_unit": "1/m"}
    assert "a trajectory in 1/m needs --fov-mm" in refusal(tmp_path / "scan.npy", **told)
    read = read_scan(tmp_path / "scan.npy", **told, fov_mm=64.0)
    assert read.result_grid.shape == (1, SIZE, SIZE)
    assert "in no unit; give --trajectory-unit" in refusal(tmp_path / "scan.npy", trajectory=told["trajectory"])


def test_arrays_that_do_not_fit_are_refused(tmp_path):
    path = tmp_path / "scan.npy"
    np.save(path, sampled()[0])
    np.save(tmp_path / "short.npy", SPOKES[:, :-4])
    np.save(tmp_path / "nan.npy", SPOKES * np.nan)
    np.save(tmp_path / "flat.npy", SPOKES[0])
    np.save(tmp_path / "line.npy", SPOKES * [1, 0])
    other = sampled()[0] * np.exp(2j * np.pi * np.random.default_rng(0).random((COILS, 24, 2 * SIZE)))
    np.save(tmp_path / "other.npy", other.astype("c8"))
    np.save(tmp_path / "k.npy", SPOKES)
    assert "no axis holds the samples: do they belong together" in refusal(path, trajectory="short.npy")
    assert "nan.npy: holds NaN" in refusal(path, trajectory="nan.npy")
    assert "a trajectory is kx + i ky" in refusal(path, trajectory="flat.npy")
    assert "lie on one line" in refusal(path, trajectory="line.npy")
    told = {"trajectory": "k.npy", "trajectory_unit": "cycles/fov", "fov_mm": 64.0}
    assert "fit no image along this trajectory" in refusal(tmp_path / "other.npy", **told)
    assert read_scan(tmp_path / "other.npy", **told, delays="off").data.shape == (1, COILS, 24, 2 * SIZE)
    assert "give its file, --trajectory" in refusal(path, fov_mm=64.0)
    assert "axis is for measured projections" in refusal(path, axis=3.0)


def test_bart(tmp_path):
    def write(name: str, array: np.ndarray) -> None:
        (tmp_path / f"{name}.hdr").write_text("# Dimensions\n" + " ".join(map(str, array.shape)) + "\n")
        np.asarray(array, "<c8").ravel(order="F").tofile(tmp_path / f"{name}.cfl")

    data = sampled()[0]
    write("scan", data.transpose(2, 1, 0)[None])
    assert "give the file of its trajectory" in refusal(tmp_path / "scan.cfl")
    write("traj", np.pad(SPOKES, ((0, 0), (0, 0), (0, 1))).transpose(2, 1, 0))
    read = read_scan(tmp_path / "scan.cfl")
    np.testing.assert_allclose(read.data[0], data, rtol=1e-6)
    np.testing.assert_allclose(in_cycles(read), SPOKES, atol=1e-5)
    with open(tmp_path / "scan.cfl", "ab") as file:
        file.write(b"12345678")
    assert "its header announces" in refusal(tmp_path / "scan.cfl")


# --- Siemens


def test_radial_twix_needs_angles(tmp_path):
    points = radial(spoke_angles(24, "tiny-3"), 2 * SIZE)
    data = sampled(points)[0]
    blocks = [twix_block(data[:, n], line=n) for n in range(len(points))]
    path = write_twix(tmp_path / "scan.dat", blocks, protocol(trajectory=2, base=SIZE, read=64.0, phase=64.0))
    assert "give --angles golden, tiny-N, uniform or degrees a spoke" in refusal(path)
    read = read_scan(path, angles="tiny-3")
    np.testing.assert_allclose(in_cycles(read), points, atol=1e-9)
    np.testing.assert_allclose(read.data[0], data, rtol=1e-6)
    assert "use golden, tiny-N" in refusal(path, angles="silver")


# --- delays


@pytest.mark.parametrize("delays", [(0.3, -0.5, 0.1), (1.0, -1.0, 0.2), (-1.0, -0.8, -0.3), (0.05, 0.0, 0.0)])
def test_delays_are_found(delays):
    data = sampled(delayed(SPOKES, delays))
    noise = np.random.default_rng(1).standard_normal((*data.shape, 2)) @ [1, 1j]
    found = estimate_delays(SPOKES, data + 0.003 * np.abs(data).mean() * noise)
    assert found is not None
    assert found.delays == pytest.approx(delays, abs=0.05)
    assert found.after <= found.before


def test_delays_are_stated_and_given(tmp_path):
    data = sampled(delayed(SPOKES, (0.4, -0.3, 0.0)))[0]
    lines = [readout(data[:, n], line=n, traj=SPOKES[n]) for n in range(len(SPOKES))]
    path = write_ismrmrd(tmp_path / "scan.h5", lines, xml=XML)
    read = read_scan(path)
    np.testing.assert_allclose(in_cycles(read), delayed(SPOKES, (0.4, -0.3, 0.0)), atol=0.02)
    assert "residual around the centre" in " ".join(read.notes)
    np.testing.assert_allclose(in_cycles(read_scan(path, delays="off")), SPOKES, atol=1e-4)
    np.testing.assert_allclose(
        in_cycles(read_scan(path, delays="0.4,-0.3,0")), delayed(SPOKES, (0.4, -0.3, 0.0)), atol=1e-4
    )
    assert "use auto, off or three numbers" in refusal(path, delays="1,2")
    assert parsed_delays("auto") is None


def test_half_a_sample_off_the_centre_is_stated(tmp_path):
    half = radial(spoke_angles(24), 2 * SIZE, centre=SIZE - 0.5)
    read = read_scan(write_ismrmrd(tmp_path / "scan.h5", acquisitions(half), xml=XML))
    assert "0.5 samples beside the nearest one" in " ".join(read.notes)


def test_lines_to_and_fro_are_aligned():
    along = np.sign(np.linspace(-1, 1, 60)) * (np.abs(np.linspace(-1, 1, 60)) ** 1.1) * 15
    backwards = np.arange(SIZE) % 2 == 1
    points = echo_planar(np.arange(SIZE) - SIZE // 2, along, backwards)
    data = sampled(delayed(points, (0.6, 0.0, 0.0)))
    data[:, :, backwards] *= np.exp(0.3j)
    remarks: list[str] = []
    turned, moved = aligned_echoes(data, points, "auto", remarks)
    np.testing.assert_allclose(moved, delayed(points, (0.6, 0, 0)), atol=0.05)
    np.testing.assert_allclose(turned, sampled(delayed(points, (0.6, 0, 0))), atol=0.1 * np.abs(data).max())
    assert "a delay of 0.6" in remarks[0]


def test_spirals_keep_their_grid_and_shifts_move_the_image(tmp_path):
    arms = spiral(8, SIZE / 2 - 0.5, turns=2.0)
    np.save(tmp_path / "scan.npy", sampled(arms)[0])
    np.save(tmp_path / "traj.npy", arms)
    told = {"trajectory": "traj.npy", "fov_mm": 64.0, "matrix": SIZE}
    read, moved = read_scan(tmp_path / "scan.npy", **told), read_scan(tmp_path / "scan.npy", **told, shift_mm="4,-2")
    assert read.geometry.pattern == "spiral"
    wanted = exact_samples(arms, (SIZE, SIZE))(torch.roll(images()[0], (-1, 2), (1, 2))).numpy()
    np.testing.assert_allclose(moved.data[0].reshape(COILS, -1), wanted, atol=2e-3 * np.abs(wanted).max())
