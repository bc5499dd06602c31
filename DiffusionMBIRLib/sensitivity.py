"""Receiving coils: their noise, how many are needed, and the sensitivity maps S_c of y_c = F (S_c x).

ESPIRiT needs torch, maps from low-resolution images numpy only.  All work is done slice by slice on centred k-space,
(slices, coils, rows, columns), and every map is scaled to sum |S_c|^2 = 1 over the coils wherever it is not zero, which
keeps the norm of the SENSE operator at 1.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from .errors import InputError
from .scans import KSpace

METHODS = ("auto", "espirit", "low-resolution")
WHITENED_STD = float(np.sqrt(0.5))  # of real and imaginary parts after ``whiten``: the complex variance is 1
SMALLEST_ACS = 8  # lines; below, a calibration says nothing about how coils vary
_LARGEST_ACS = 24
_FINENESS = 4  # voxels along each axis on which ESPIRiT is worked out, for each line of its calibration
_MEDIAN_OF_RAYLEIGH = float(np.sqrt(2 * np.log(2)))
_FEWEST_NOISE_SAMPLES = 64


def centred_fft(x: np.ndarray, axes: tuple[int, ...] = (-2, -1)) -> np.ndarray:
    """Orthonormal Fourier transform with the origin in the middle, at n // 2 of each axis; keeps single precision."""
    return _transform(np.fft.fftn, x, axes)


def centred_ifft(y: np.ndarray, axes: tuple[int, ...] = (-2, -1)) -> np.ndarray:
    """The inverse and adjoint of :func:`centred_fft`."""
    return _transform(np.fft.ifftn, y, axes)


def _transform(fft: Any, x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    shifted = fft(np.fft.ifftshift(x, axes=axes), axes=axes, norm="ortho")
    return np.fft.fftshift(shifted, axes=axes).astype(np.result_type(x.dtype, np.complex64), copy=False)


def root_sum_of_squares(images: np.ndarray, axis: int = 1) -> np.ndarray:
    """The magnitude of all coils together."""
    return np.sqrt(np.sum(np.abs(images) ** 2, axis=axis))


# --- noise


def whiten(data: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Mix the coils so that their noise is independent and equal: variance 1 of each complex sample.

    data: complex (slices, coils, rows, columns); noise: complex (coils, samples) of a scan without excitation.
    Raises InputError where the noise scan does not fit or does not determine the coils' covariance.
    """
    coils = data.shape[1]
    if noise.ndim != 2 or noise.shape[0] != coils:
        raise InputError(f"noise scan has the shape {noise.shape}; {coils} coils x samples are needed")
    if noise.shape[1] < 2 * coils:
        raise InputError(f"noise scan has {noise.shape[1]} samples for {coils} coils; at least {2 * coils} are needed")
    wide = noise.astype(np.complex128)
    covariance = wide @ wide.conj().T / wide.shape[1]
    try:
        mixing = np.linalg.inv(np.linalg.cholesky(covariance))
    except np.linalg.LinAlgError:
        raise InputError("noise scan: a coil is silent or a copy of others; leave it out of the data") from None
    return np.einsum("ij,sjrc->sirc", mixing.astype(np.complex64), data, optimize=True)


def noise_std_of(kspace: KSpace) -> float:
    """Standard deviation of the noise in real and imaginary parts, 0.0 where the data do not tell.

    Taken from the measurement if it says so; otherwise from the outermost sampled positions, whose median magnitude
    a few strong values of the object's edges do not shift.  What is left of the object there makes it an upper bound.
    """
    if kspace.noise_std > 0:
        return kspace.noise_std
    outer = kspace.data[..., kspace.geometry.outermost]
    if outer.size < _FEWEST_NOISE_SAMPLES:
        return 0.0
    return float(np.median(np.abs(outer)) / _MEDIAN_OF_RAYLEIGH)


# --- fewer coils


def calibration(kspace: KSpace, largest: int | None = None) -> np.ndarray:
    """The fully sampled middle of k-space, (slices, coils, rows, columns), at most ``largest`` wide."""
    rows, columns = (min(n, largest or n) for n in calibration_size(kspace))
    return _middle(_calibrating(kspace), rows, columns)


def calibration_size(kspace: KSpace) -> tuple[int, int]:
    """Rows and columns of the fully sampled middle: of the data, or of a separate scan where they lack one."""
    data = _calibrating(kspace)
    return kspace.geometry.acs if data is kspace.data else (data.shape[2], data.shape[3])


def _calibrating(kspace: KSpace) -> np.ndarray:
    lacking = min(kspace.geometry.acs) < SMALLEST_ACS
    return kspace.calibration if lacking and kspace.calibration is not None else kspace.data


def _middle(data: np.ndarray, rows: int, columns: int) -> np.ndarray:
    top, left = (data.shape[-2] // 2 - rows // 2, data.shape[-1] // 2 - columns // 2)
    return data[..., top : top + rows, left : left + columns]


def compress_coils(kspace: KSpace, coils: int, middle: KSpace | None = None) -> KSpace:
    """At most ``coils`` virtual coils that hold most of the calibration's energy; white noise stays white.

    middle: a Cartesian scan of the same coils that tells it, of a trajectory.
    Raises InputError for fewer than one coil.
    """
    if coils < 1:
        raise InputError(f"coils must be at least 1, not {coils}")
    if coils >= kspace.geometry.coils:
        return kspace
    mixing = main_coils(middle or kspace)[:, :coils].conj().T
    data, maps, apart = (
        None if array is None else np.einsum("ij,sjrc->sirc", mixing, array, optimize=True)
        for array in (kspace.data, kspace.maps, kspace.calibration)
    )
    assert data is not None
    return replace(
        kspace,
        data=data,
        geometry=replace(kspace.geometry, coils=coils),
        maps=None if maps is None else _normalised(maps),
        calibration=apart,
    )


def main_coils(kspace: KSpace) -> np.ndarray:
    """Unitary complex64 (coils, coils) of a Cartesian scan: columns combine coils, that with most energy first."""
    middle = calibration(kspace, 2 * _LARGEST_ACS)
    if middle.size == 0:
        middle = kspace.data
    samples = np.moveaxis(middle, 1, 0).reshape(kspace.geometry.coils, -1).astype(np.complex128)
    return np.linalg.svd(samples @ samples.conj().T)[0].astype(np.complex64)


# --- maps


def maps_method(method: str = "auto") -> str:
    """What "auto" stands for: "espirit"."""
    if method not in METHODS:
        raise InputError(f"method {method!r} of the sensitivity maps is not known; use one of {', '.join(METHODS)}")
    return "espirit" if method == "auto" else method


def estimate_maps(kspace: KSpace, *, method: str = "auto", whole: KSpace | None = None) -> np.ndarray:
    """Sensitivity maps, complex64 (slices, coils, rows, columns), from the fully sampled middle of k-space.

    Where the data lack one, a separate calibration scan stands in.
    "espirit" sets them to zero where the calibration shows no object; "low-resolution" leaves them noise-like there.
    Their phase is that of one virtual coil, the same for all slices, so that the image's phase is smooth in space.
    whole: the measurement that ``kspace`` holds some slices of, which that coil is found in.
    Raises InputError where there are too few calibration lines.
    """
    method = maps_method(method)
    if kspace.geometry.coils == 1:
        return np.ones((1, *kspace.data.shape[1:]), dtype=np.complex64)
    rows, columns = calibration_size(kspace)
    if min(rows, columns) < SMALLEST_ACS:
        raise InputError(
            f"{kspace.name}: the middle of k-space is fully sampled over {rows} x {columns} positions only; "
            f"sensitivity maps need at least {SMALLEST_ACS} x {SMALLEST_ACS}: bring maps, or data with ACS lines"
        )
    maps = _espirit(kspace) if method == "espirit" else _low_resolution(kspace)
    if not maps.any() and (whole is None or whole is kspace):
        raise InputError(f"{kspace.name}: no sensitivity maps could be found; is there an object, or is all noise?")
    return _with_common_phase(maps, main_coils(whole or kspace)[:, 0])


def _espirit(kspace: KSpace) -> np.ndarray:
    """Maps found on a grid that is coarse, but fine against their smoothness, then interpolated: much less work."""
    from .espirit import espirit_maps

    width = min(*calibration_size(kspace), _LARGEST_ACS)
    shape = kspace.geometry.mask.shape
    coarse = (min(shape[0], _FINENESS * width), min(shape[1], _FINENESS * width))
    maps = np.zeros_like(kspace.data)
    for index, middle in enumerate(calibration(kspace, width)):
        if middle.any():
            maps[index] = _refined(espirit_maps(middle, coarse, kernel=min(6, width // 2)), shape)
    return _normalised(maps)


def _refined(maps: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Maps (coils, rows, columns) interpolated to a finer grid of the same field of view.

    Each voxel's maps are known up to a phase; neighbours are turned to agree with the nearest before they are mixed.
    """
    near, low, share = zip(*(_neighbours(fine, n) for fine, n in zip(shape, maps.shape[1:], strict=True)), strict=True)
    nearest = maps[:, near[0][:, None], near[1]]
    mixed = np.zeros((len(maps), *shape), dtype=np.complex64)
    for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
        rows, columns = ((low[axis] + step) % maps.shape[1 + axis] for axis, step in ((0, down), (1, right)))
        weight = np.outer(*(np.abs(1 - step - share[axis]) for axis, step in ((0, down), (1, right))))
        corner = maps[:, rows[:, None], columns]
        agreement = np.sum(nearest.conj() * corner, axis=0)
        mixed += corner * (weight * _turned_back(agreement))
    return np.where(np.any(nearest != 0, axis=0), mixed, 0)


def _neighbours(fine: int, coarse: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each fine voxel along one axis: the nearest coarse one, that before it, and the distance from the latter."""
    place = (np.arange(fine) - fine // 2) * (coarse / fine) + coarse // 2
    low = np.floor(place).astype(int)
    return np.rint(place).astype(int) % coarse, low, place - low


def _turned_back(z: np.ndarray) -> np.ndarray:
    """exp(-i angle(z)), 1 where z is zero."""
    magnitude = np.abs(z)
    return np.where(magnitude > 0, z.conj() / np.where(magnitude > 0, magnitude, 1), 1).astype(np.complex64)


def _embedded(middle: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    whole = np.zeros((*middle.shape[:-2], *shape), dtype=middle.dtype)
    _middle(whole, *middle.shape[-2:])[...] = middle
    return whole


def _low_resolution(kspace: KSpace) -> np.ndarray:
    """Images of the tapered middle of k-space, over their root sum of squares."""
    middle = calibration(kspace, 2 * _LARGEST_ACS)
    taper = np.outer(*(np.hanning(n + 2)[1:-1] for n in middle.shape[-2:])).astype(np.float32)
    return _normalised(centred_ifft(_embedded(middle * taper, kspace.geometry.mask.shape)))


def _normalised(maps: np.ndarray) -> np.ndarray:
    total = root_sum_of_squares(maps)[:, None]
    floor = np.finfo(np.float32).tiny
    return np.where(total > floor, maps / np.maximum(total, floor), 0).astype(np.complex64, copy=False)


def _with_common_phase(maps: np.ndarray, combination: np.ndarray) -> np.ndarray:
    """The maps turned, voxel by voxel, until the given combination of coils sees a real, positive sensitivity."""
    seen = np.einsum("j,sjrc->src", combination.conj(), maps, optimize=True)
    return maps * _turned_back(seen)[:, None]
