"""Grids, axis orders and parallel beams."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.geometry import Grid, ParallelBeam, axial_order, geometry_from_dict, view_angles
from DiffusionMBIRLib.scans import Measurement
from DiffusionMBIRLib.volume import Volume
from Testing.engine.helpers import rotation


def world_of(grid: Grid, index: tuple[int, int, int]) -> np.ndarray:
    """World position of the array index (slice, row, column)."""
    return np.asarray(grid.origin_mm) + grid.matrix @ (np.array(index[::-1]) * grid.spacing_mm)


def turned_grid(matrix: np.ndarray) -> Grid:
    return Grid((3, 4, 5), (1.5, 0.7, 2.0), (10.0, -20.0, 30.0), tuple(matrix.reshape(-1)))


SIGNED_PERMUTATIONS = [
    np.eye(3)[list(order)] * np.array(signs)
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


@pytest.mark.parametrize("matrix", [*SIGNED_PERMUTATIONS, rotation((10, -20, 30)), rotation((80, 5, -100))])
def test_axial_order_moves_every_voxel_with_its_place(matrix):
    grid = turned_grid(matrix)
    order = axial_order(grid)
    numbers = np.arange(60).reshape(grid.shape)
    axial, axial_grid = order.apply(numbers), order.apply_to_grid(grid)
    assert axial.shape == axial_grid.shape
    assert np.all(np.diag(axial_grid.matrix) > 0)
    assert np.array_equal(order.undo(axial), numbers)
    for index in np.ndindex(*grid.shape):
        found = tuple(int(i[0]) for i in np.where(axial == numbers[index]))
        assert np.allclose(world_of(axial_grid, found), world_of(grid, index))
    back = order.inverse().apply_to_grid(axial_grid)
    assert back.shape == grid.shape
    assert np.allclose(back.origin_mm, grid.origin_mm)
    assert np.allclose(back.direction, grid.direction)
    assert np.allclose(back.spacing_mm, grid.spacing_mm)


def test_axial_order_leaves_axial_grids_alone():
    grid = Grid((3, 4, 5))
    order = axial_order(grid)
    assert order.permutation == (0, 1, 2)
    assert not any(order.flipped)
    assert order.apply_to_grid(grid) == grid


def test_coarsened_grid_keeps_the_field_of_view():
    grid = Grid((2, 6, 12), (0.5, 0.75, 2.0), (1.0, 2.0, 3.0), tuple(rotation((0, 0, 30)).reshape(-1)))
    coarse = grid.coarsened(3)
    assert coarse.shape == (2, 2, 4)
    assert coarse.spacing_mm == (1.5, 2.25, 2.0)
    assert np.allclose(world_of(coarse, (0, 0, 0)), world_of(grid, (0, 1, 1)))
    assert np.allclose(world_of(coarse, (1, 1, 3)), world_of(grid, (1, 4, 10)))


@pytest.mark.parametrize("factor", [0, -1, 5, 1.5, "two"])
def test_coarsening_that_does_not_fit_is_refused(factor):
    with pytest.raises(InputError, match="coarsen"):
        Grid((2, 6, 12)).coarsened(factor)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("shape", (3, 4)),
        ("shape", (3, 4, 0)),
        ("shape", (3, 4, 1.5)),
        ("shape", (3, 4, math.nan)),
        ("spacing_mm", (1, 1, 0)),
        ("spacing_mm", (1, 1)),
        ("spacing_mm", (1, 1, math.inf)),
        ("origin_mm", (0, 0, math.nan)),
        ("origin_mm", ("a", 0, 0)),
        ("direction", (1, 0, 0, 0, 1, 0, 0, 0, 0)),
        ("direction", (1, 0, 0, 1, 0, 0, 0, 0, 1)),
        ("direction", (1, 0, 0)),
    ],
)
def test_grid_names_the_bad_field(field, value):
    with pytest.raises(InputError, match=f"grid.{field}"):
        Grid.from_dict({**Grid((3, 4, 5)).to_dict(), field: value})


def test_grid_and_beam_survive_their_dictionaries():
    grid = turned_grid(rotation((1, 2, 3)))
    assert Grid.from_dict(grid.to_dict()) == grid
    beam = ParallelBeam((0.0, 17.5), 9, 1.25, -0.5)
    assert geometry_from_dict(beam.to_dict()) == beam


@pytest.mark.parametrize("field", ["shape", "spacing_mm", "origin_mm", "direction"])
def test_grid_from_dict_names_what_lacks(field):
    entries = Grid((3, 4, 5)).to_dict()
    del entries[field]
    with pytest.raises(InputError, match=field):
        Grid.from_dict(entries)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("angles_deg", []),
        ("angles_deg", [0.0, math.nan]),
        ("angles_deg", ["north"]),
        ("columns", 0),
        ("columns", 2.5),
        ("columns", None),
        ("pitch_mm", 0.0),
        ("pitch_mm", -1.0),
        ("pitch_mm", math.nan),
        ("offset_mm", math.inf),
        ("kind", "gamma-camera"),
    ],
)
def test_beam_names_the_bad_field(field, value):
    entries = ParallelBeam((0.0, 90.0), 4, 1.0).to_dict()
    with pytest.raises(InputError, match=f"geometry.{field}"):
        geometry_from_dict({**entries, field: value})


@pytest.mark.parametrize("field", ["kind", "angles_deg", "columns", "pitch_mm"])
def test_beam_from_dict_names_what_lacks(field):
    entries = ParallelBeam((0.0, 90.0), 4, 1.0).to_dict()
    del entries[field]
    with pytest.raises(InputError, match=field):
        geometry_from_dict(entries)


@pytest.mark.parametrize("make", [Grid.from_dict, geometry_from_dict])
@pytest.mark.parametrize("entries", [None, 3, []])
def test_what_is_no_dictionary_is_refused(make, entries):
    with pytest.raises(InputError):
        make(entries)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 7, 30), (2, 64, 64)])
def test_covering_detector_sees_the_corners(shape):
    grid = Grid(shape, (0.6, 0.9, 1.0))
    beam = ParallelBeam.covering(grid, view_angles(4))
    half_diagonal = math.hypot(shape[1] * 0.9, shape[2] * 0.6) / 2
    assert beam.pitch_mm == 0.6
    assert beam.columns * beam.pitch_mm / 2 >= half_diagonal
    assert ParallelBeam.covering(grid, [0.0], 2.0).pitch_mm == 2.0
    with pytest.raises(InputError, match="pitch_mm"):
        ParallelBeam.covering(grid, [0.0], 0.0)


def test_view_angles():
    assert view_angles(4) == (0.0, 45.0, 90.0, 135.0)
    assert view_angles(3, 90.0, 10.0) == (10.0, 40.0, 70.0)
    for views, angle_range in ((0, 180.0), (2.5, 180.0), (4, 0.0), (4, math.nan), (4, 361.0)):
        with pytest.raises(InputError, match="views|angle_range_deg"):
            view_angles(views, angle_range)


def measurement_on(grid: Grid, stored_grid: Grid | None) -> Measurement:
    beam = ParallelBeam.covering(grid, view_angles(2))
    return Measurement(np.zeros(beam.data_shape(grid.shape[0]), np.float32), beam, grid, stored_grid=stored_grid)


def test_results_go_back_to_the_stored_order():
    stored = turned_grid(SIGNED_PERMUTATIONS[20])
    volume = Volume(np.arange(60.0).reshape(stored.shape), stored)
    axial, _ = volume.axial()
    back = measurement_on(axial.grid, stored).volume(axial.array, "volume")
    assert back.grid == stored
    assert np.array_equal(back.array, volume.array)
    assert measurement_on(axial.grid, None).volume(axial.array, "volume").grid == axial.grid
    with pytest.raises(InputError, match="does not fit"):
        measurement_on(axial.grid, stored).volume(axial.array[:-1], "volume")


def test_stored_grid_of_another_shape_is_refused():
    with pytest.raises(InputError, match="stored_grid"):
        measurement_on(Grid((3, 4, 5)), Grid((3, 5, 4)))


@pytest.mark.parametrize(
    ("setting", "value"),
    [("photons", -1.0), ("photons", math.nan), ("electronic_noise", math.inf), ("mu_water_per_mm", 0.0), ("task", "x")],
)
def test_measurement_names_the_bad_setting(setting, value):
    beam = ParallelBeam((0.0,), 3, 1.0)
    with pytest.raises(InputError, match=setting):
        Measurement(np.zeros((1, 1, 3), np.float32), beam, Grid((1, 2, 2)), **{setting: value})


@pytest.mark.parametrize(("shape", "what"), [((2, 1, 3), "slices"), ((1, 2, 3), "angles"), ((1, 1, 4), "columns")])
def test_measurement_names_the_axis_that_does_not_fit(shape, what):
    with pytest.raises(InputError, match=what):
        Measurement(np.zeros(shape, np.float32), ParallelBeam((0.0,), 3, 1.0), Grid((1, 2, 2)))


def test_volume_refuses_what_is_no_volume():
    with pytest.raises(InputError, match="three axes"):
        Volume(np.zeros((2, 2)), Grid((1, 2, 2)))
    with pytest.raises(InputError, match="does not fit"):
        Volume(np.zeros((1, 2, 3)), Grid((1, 2, 2)))
    with pytest.raises(InputError, match="1 of 4 values"):
        Volume(np.array([[[0.0, 1.0], [2.0, np.nan]]]), Grid((1, 2, 2)))
    with pytest.raises(InputError, match="complex"):
        Volume(np.zeros((1, 2, 2), complex), Grid((1, 2, 2)))
