"""How near a reconstruction is to its reference: PSNR and SSIM of slices in the three planes.  Needs numpy only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

import numpy as np

from .errors import InputError
from .geometry import Grid
from .hounsfield import remarks_on
from .volume import Volume, require_finite

PLANES = ("axial", "coronal", "sagittal")  # constant index along array axis 0, 1, 2
WINDOW_SIGMA, WINDOW_RADIUS = 1.5, 5
K1, K2 = 0.01, 0.03


def psnr(image: np.ndarray, truth: np.ndarray, data_range: float) -> float:
    """Peak signal-to-noise ratio in dB, 10 log10(data_range^2 / mean squared error); infinite without any error."""
    a, b = _checked(image, truth, data_range)
    error = float(np.mean(np.square(a - b)))
    return 10 * math.log10(data_range**2 / error) if error > 0 else math.inf


def ssim(image: np.ndarray, truth: np.ndarray, data_range: float) -> float:
    """Mean structural similarity of two images (rows, columns); 1 where they are equal.

    Wang et al. 2004 (doi 10.1109/TIP.2003.819861): Gaussian window of 11 x 11 with sigma 1.5, K1 0.01, K2 0.03, biased
    variances, mean over the positions where the window lies inside the image.  Along a side shorter than the window
    the image is mirrored and every position counts.
    """
    a, b = _checked(image, truth, data_range)
    if a.ndim != 2:
        raise InputError(f"ssim needs images with two axes (rows, columns), these have {a.ndim}")
    return _ssim(a, b, _window(a.shape[0]), _window(a.shape[1]), data_range)


def per_plane(volume: np.ndarray, truth: np.ndarray, *, data_range: float | None = None) -> dict[str, Any]:
    """PSNR in dB and SSIM in each plane: ``{"axial": {"psnr", "ssim"}, "coronal", "sagittal", "data_range"}``.

    volume, truth: (slices, rows, columns) in axial order and one unit.  data_range: in that unit; by default maximum
    minus minimum of the truth volume.  Both figures are means over the slices of a plane.  A slice without any error
    (such as air filled with air) has an infinite PSNR and is left out of the PSNR's mean, so that it cannot flatter the
    result; its SSIM is 1 and counts.  Where all slices are without error the PSNR is infinite.
    """
    volume, truth = np.asarray(volume), np.asarray(truth)
    if volume.ndim != 3:
        raise InputError(f"per_plane needs volumes (slices, rows, columns), this one has {volume.ndim} axes")
    if data_range is None:
        require_finite(truth, "truth")
        data_range = float(truth.max()) - float(truth.min())
        if data_range == 0:
            raise InputError("truth: the reference has one value everywhere; give data_range")
    a, b = _checked(volume, truth, data_range)
    result: dict[str, Any] = {}
    for axis, plane in enumerate(PLANES):
        images, references = np.moveaxis(a, axis, 0), np.moveaxis(b, axis, 0)
        down, across = _window(images.shape[1]), _window(images.shape[2])
        errors = np.square(images - references).mean(axis=(1, 2))
        levels = 10 * np.log10(data_range**2 / errors[errors > 0])
        similar = [_ssim(i, r, down, across, data_range) for i, r in zip(images, references, strict=True)]
        result[plane] = {"psnr": float(levels.mean()) if levels.size else math.inf, "ssim": float(np.mean(similar))}
    return result | {"data_range": data_range}


def evaluate(recon: Volume, reference: Volume, *, data_range: float | None = None) -> dict[str, Any]:
    """:func:`per_plane` of a reconstruction against a reference on the same or another grid.

    Both are turned to axial order.  A reference that is finer in-plane by an integer factor is averaged over blocks of
    pixels, any other grid is interpolated linearly onto the reconstruction's; ``"reference"`` in the result says
    which: "as is", "block mean xF" or "resampled".  A reconstruction without unit (MR) is compared with any reference,
    as volume files seldom name theirs.  ``"remarks"`` are there where a volume hardly holds the HU that it claims.
    Raises InputError where the two cover different fields of view or have different units.
    """
    if recon.unit != reference.unit and recon.unit:
        raise InputError(f"{recon.name} is in {recon.unit}, {reference.name} in {reference.unit}; bring one unit")
    remarks = [f"{volume.name}: {line}" for volume in (recon, reference) for line in remarks_on(volume)]
    recon, reference = recon.axial()[0], reference.axial()[0]
    _check_field_of_view(recon, reference)
    reference, how = _on_grid(reference, recon.grid)
    metrics = per_plane(recon.array, reference.array, data_range=data_range) | {"reference": how}
    return metrics | ({"remarks": remarks} if remarks else {})


def uncertainty(mean: Volume, deviation: Volume, reference: Volume, *, samples: int) -> dict[str, float]:
    """How well the standard deviation of posterior samples tells the error of their mean.

    Over the voxels of the object, those above 5 % of the way from the least value to the 99.5th percentile:
    ``correlation`` of the deviation with the absolute error, ``coverage_68`` and ``coverage_95``: shares of voxels
    whose true value lies within the interval in which that share of them is expected, ``deviation`` and ``error``: root
    mean squares of both.  A truth drawn from the same Gaussian posterior as the samples differs from their mean by
    sqrt(1 + 1 / samples) deviations, and over a deviation that is estimated from few samples its distance is spread as
    Student's t: 95 % lie within 3.18 of these for four samples, within 1.96 for very many.  Grids are treated as in
    :func:`evaluate`.
    """
    mean, spread, reference = mean.axial()[0], deviation.axial()[0], reference.axial()[0]
    _check_field_of_view(mean, reference)
    truth = _on_grid(reference, mean.grid)[0].array.astype(np.float64)
    low = truth.min()
    inside = truth > low + 0.05 * (np.percentile(truth, 99.5) - low)
    error = np.abs(mean.array.astype(np.float64) - truth)[inside]
    predicted = spread.array.astype(np.float64)[inside] * math.sqrt(1 + 1 / samples)
    varies = predicted.std() > 0 and error.std() > 0
    return {
        "correlation": float(np.corrcoef(predicted, error)[0, 1]) if varies else math.nan,
        "coverage_68": float(np.mean(error <= _student_interval(0.68, samples - 1) * predicted)),
        "coverage_95": float(np.mean(error <= _student_interval(0.95, samples - 1) * predicted)),
        "deviation": float(np.sqrt(np.mean(predicted**2))),
        "error": float(np.sqrt(np.mean(error**2))),
    }


def uncertainty_text(found: Mapping[str, float]) -> str:
    """What :func:`uncertainty` found, in one line."""
    return (
        f"correlation {found['correlation']:.2f}; {found['coverage_68']:.0%} of the true values where 68 % are "
        f"expected, {found['coverage_95']:.0%} where 95 % are"
    )


def _student_interval(share: float, freedom: int) -> float:
    """t such that ``share`` of Student's distribution with an integer number of degrees of freedom lies within +-t.

    Bisection of the closed form, Abramowitz and Stegun 1964, 26.7.3 and 26.7.4, with t = sqrt(freedom) tan(angle).
    """
    if freedom > 1000:  # Gaussian to three digits
        return NormalDist().inv_cdf((1 + share) / 2)
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        angle = (low + high) / 2
        odd, term, total = freedom % 2, 1.0, 0.0
        for k in range(freedom // 2):  # the powers of the cosine and their coefficients
            total += term
            term *= (2 * k + 1 + odd) / (2 * k + 2 + odd) * math.cos(angle) ** 2
        within = math.sin(angle) * total
        if odd:
            within = 2 / math.pi * (angle + within * math.cos(angle))
        low, high = (angle, high) if within < share else (low, angle)
    return math.sqrt(freedom) * math.tan(angle)


def _checked(image: np.ndarray, truth: np.ndarray, data_range: float) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(image, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    if a.shape != b.shape:
        raise InputError(f"image {a.shape} and truth {b.shape} differ in shape; bring both onto one grid first")
    if a.size == 0:
        raise InputError(f"image and truth are empty: {a.shape}")
    if not (math.isfinite(data_range) and data_range > 0):
        raise InputError(f"data_range must be positive, not {data_range}")
    require_finite(a, "image")
    require_finite(b, "truth")
    return a, b


def _window(size: int) -> np.ndarray:
    """The Gaussian window along one side as a matrix (positions, size), so that filtering is two matrix products."""
    offsets = np.arange(-WINDOW_RADIUS, WINDOW_RADIUS + 1)
    weights = np.exp(-0.5 * np.square(offsets / WINDOW_SIGMA))
    mirrored = np.pad(np.arange(size), WINDOW_RADIUS, mode="symmetric")
    matrix = np.zeros((size, size))
    for position in range(size):
        np.add.at(matrix[position], mirrored[position : position + len(weights)], weights / weights.sum())
    return matrix[WINDOW_RADIUS:-WINDOW_RADIUS] if size >= len(weights) else matrix


def _ssim(a: np.ndarray, b: np.ndarray, down: np.ndarray, across: np.ndarray, data_range: float) -> float:
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    fields = np.stack([a, b, a * a + b * b, a * b])
    mean_a, mean_b, squares, products = down @ fields @ across.T
    product = mean_a * mean_b
    power = mean_a**2 + mean_b**2
    similar = (2 * product + c1) * (2 * (products - product) + c2) / ((power + c1) * (squares - power + c2))
    return float(similar.mean())


def _corners_mm(grid: Grid) -> np.ndarray:
    """World positions (8, 3) of the outer corners of a grid."""
    ends = [(-0.5, n - 0.5) for n in grid.shape[::-1]]
    index = np.stack(np.meshgrid(*ends, indexing="ij"), axis=-1).reshape(8, 3)
    return np.asarray(grid.origin_mm) + (index * grid.spacing_mm) @ grid.matrix.T


def _check_field_of_view(recon: Volume, reference: Volume) -> None:
    """The outer corners must agree to half a voxel."""
    apart = np.linalg.norm(_corners_mm(recon.grid) - _corners_mm(reference.grid), axis=1).max()
    if apart > 0.5 * max(*recon.grid.spacing_mm, *reference.grid.spacing_mm):
        texts = [
            f"{v.name} has {' x '.join(map(str, v.grid.shape[::-1]))} voxels of "
            f"{' x '.join(f'{s:g}' for s in v.grid.spacing_mm)} mm"
            for v in (recon, reference)
        ]
        raise InputError(
            f"{texts[0]}, {texts[1]}; their fields of view lie up to {apart:.1f} mm apart: crop or choose the "
            "reference so that both cover the same region"
        )


def _on_grid(reference: Volume, grid: Grid) -> tuple[Volume, str]:
    """The reference on ``grid`` (same field of view) and how it came there."""
    has, needs = reference.grid.shape, grid.shape
    aligned = np.allclose(reference.grid.direction, grid.direction, atol=1e-3)
    if aligned and has == needs:
        return reference, "as is"
    factor = has[1] // needs[1]
    if aligned and factor > 1 and has == (needs[0], needs[1] * factor, needs[2] * factor):
        return reference.coarsened(factor), f"block mean x{factor}"
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(reference.array.astype(np.float32))
    image.SetSpacing(reference.grid.spacing_mm)
    image.SetOrigin(reference.grid.origin_mm)
    image.SetDirection(reference.grid.direction)
    resample = sitk.ResampleImageFilter()
    resample.SetSize(needs[::-1])
    resample.SetOutputSpacing(grid.spacing_mm)
    resample.SetOutputOrigin(grid.origin_mm)
    resample.SetOutputDirection(grid.direction)
    resample.SetInterpolator(sitk.sitkLinear)
    resample.UseNearestNeighborExtrapolatorOn()  # voxels in the outer half voxel repeat their neighbour, not zero
    array = sitk.GetArrayFromImage(resample.Execute(image))
    return Volume(array, grid, unit=reference.unit, name=reference.name), "resampled"
