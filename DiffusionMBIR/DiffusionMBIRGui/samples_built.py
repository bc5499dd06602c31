"""Samples of measured data, made of ellipses in a second: a sinogram and k-space, each with the volume behind it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from vtk.util import numpy_support

from DiffusionMBIRLib.geometry import Grid
from DiffusionMBIRLib.tasks import MR_TASK, SPARSE_VIEW
from DiffusionMBIRLib.volume import MU_WATER_PER_MM

from .samples import Loaded
from .texts import _
from .volumes import image_like

# A body seen from below: centre and half axes in parts of the field's half width, turn in degrees, what it adds to the
# attenuation of water, which is 1.
_ELLIPSES = (
    (0.00, 0.00, 0.82, 0.62, 0, 1.00),
    (-0.36, 0.05, 0.28, 0.42, 8, -0.72),
    (0.36, 0.05, 0.28, 0.42, -8, -0.72),
    (0.06, 0.12, 0.20, 0.24, 0, 0.06),
    (0.00, -0.42, 0.12, 0.10, 0, 0.55),
    (-0.42, 0.10, 0.05, 0.05, 0, 0.70),
)
_SIDE, _SLICES, _VIEWS, _SPACING_MM, _SLICE_MM = 128, 16, 24, 2.5, 3.0
_FINER = 4  # the volume is drawn on so much finer a grid


@dataclass(frozen=True)
class Built:
    """A sample that no file holds."""

    name: str
    task: str
    source: str

    def title(self) -> str:
        return {"sinogram": _("Sinogram"), "k-space": _("k-space")}[self.source]

    def load(self) -> Loaded:
        """In any thread."""
        return _sinogram() if self.source == "sinogram" else _kspace()


BUILT = (
    Built("DiffusionMBIRSinogram", SPARSE_VIEW, "sinogram"),
    Built("DiffusionMBIRKSpace", MR_TASK, "k-space"),
)


def _size(index: int) -> float:
    """How large the body is in a slice: it tapers, so that slices differ."""
    return 1 - 0.2 * abs(index - (_SLICES - 1) / 2) / (_SLICES / 2)


def _attenuation() -> np.ndarray:
    """(slices, rows, columns) in multiples of water's, means over the voxels."""
    positions = (np.arange(_SIDE * _FINER) + 0.5) / (_SIDE * _FINER) * 2 - 1
    x, y = positions[None, :], positions[:, None]
    volume = np.empty((_SLICES, _SIDE, _SIDE), np.float32)
    for index in range(_SLICES):
        fine = np.zeros((_SIDE * _FINER,) * 2, np.float32)
        for x0, y0, a, b, turn, adds in _ELLIPSES:
            c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
            u, v = (x / _size(index) - x0), (y / _size(index) - y0)
            fine += adds * (((u * c + v * s) / a) ** 2 + ((v * c - u * s) / b) ** 2 <= 1)
        volume[index] = fine.reshape(_SIDE, _FINER, _SIDE, _FINER).mean(axis=(1, 3))
    return volume


def _grid() -> Grid:
    first = -(_SIDE - 1) / 2 * _SPACING_MM
    return Grid((_SLICES, _SIDE, _SIDE), (_SPACING_MM, _SPACING_MM, _SLICE_MM), (first, first, 0.0))


def _sinogram() -> Loaded:
    """Line integrals of the ellipses, exact, (slices, views, columns), and the volume in HU."""
    half = _SIDE / 2 * _SPACING_MM
    position = ((np.arange(_SIDE) + 0.5) / _SIDE * 2 - 1)[None, :]
    angles = np.radians(np.arange(_VIEWS) * 180 / _VIEWS)[:, None]
    data = np.zeros((_SLICES, _VIEWS, _SIDE), np.float32)
    for index in range(_SLICES):
        size = _size(index)
        for x0, y0, a, b, turn, adds in _ELLIPSES:
            own = angles - np.radians(turn)
            reach = (a * np.cos(own)) ** 2 + (b * np.sin(own)) ** 2
            off = position / size - x0 * np.cos(angles) - y0 * np.sin(angles)
            chord = 2 * a * b * np.sqrt(np.maximum(reach - off**2, 0)) / reach
            data[index] += adds * chord * size * half * MU_WATER_PER_MM
    grid = _grid()
    place = Grid(data.shape, (_SPACING_MM, 1.0, _SLICE_MM), grid.origin_mm)
    truth = Loaded(image_like(1000 * _attenuation() - 1000), grid, (1400.0, -200.0))
    return Loaded(image_like(data), place, (float(data.max()), float(data.max()) / 2), reference=truth)


def _kspace() -> Loaded:
    """Every second line and the middle of k-space of one coil, (slices, rows, columns, 2), and the magnitudes."""
    from vtk import vtkImageData

    magnitudes = np.abs(_attenuation()) * 100
    spectrum = np.fft.fftshift(
        np.fft.fft2(np.fft.ifftshift(magnitudes, axes=(1, 2)), axes=(1, 2), norm="ortho"), axes=(1, 2)
    )
    columns = np.arange(_SIDE)
    spectrum *= (columns % 2 == 0) | (np.abs(columns - _SIDE // 2) < 10)
    parts = np.stack([spectrum.real, spectrum.imag], axis=-1).astype(np.float32)
    image = vtkImageData()
    image.SetDimensions(_SIDE, _SIDE, _SLICES)
    image.GetPointData().SetScalars(numpy_support.numpy_to_vtk(parts.reshape(-1, 2), deep=True))
    high = float(magnitudes.max())
    return Loaded(image, _grid(), vectors=True, reference=Loaded(image_like(magnitudes), _grid(), (high, high / 2)))
