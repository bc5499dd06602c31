"""Parallel-beam scans of known discs, as counts and as files, for the tests of readers and preparation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile

DISCS = ((2.0, -3.0, 17.0, 0.02), (-7.0, 6.0, 5.0, 0.03), (5.0, 8.0, 3.0, -0.015))  # x, y, radius, 1/pixel


def lines_of(angles_deg, *, rows=3, columns=64, axis=31.5, discs=DISCS) -> np.ndarray:
    """Exact line integrals (views, rows, columns); the axis lies at a column."""
    theta = np.radians(np.asarray(angles_deg, float))[:, None]
    s = np.arange(columns) - axis
    total = np.zeros((len(theta), columns))
    for x, y, radius, attenuation in discs:
        away = s - (x * np.cos(theta) + y * np.sin(theta))
        total += attenuation * 2 * np.sqrt(np.maximum(radius**2 - away**2, 0))
    return np.repeat(total[:, None], rows, axis=1)


def image_of(size: int, discs=DISCS, sub: int = 4) -> np.ndarray:
    """The discs' attenuation on size x size pixels about the axis, means over the pixels."""
    g = (np.arange(size * sub) + 0.5) / sub - size / 2
    x, y = np.meshgrid(g, g)
    fine = sum(a * ((x - cx) ** 2 + (y - cy) ** 2 <= r * r) for cx, cy, r, a in discs)
    return np.asarray(fine).reshape(size, sub, size, sub).mean(axis=(1, 3))


def counted(line: np.ndarray, beam: float = 20000.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts, flat and dark of line integrals (views, rows, columns)."""
    rows, columns = line.shape[1:]
    dark = np.full((rows, columns), 100.0)
    flat = dark + beam + 300 * np.cos(np.arange(columns)) * np.ones((rows, 1))
    return (flat - dark) * np.exp(-line) + dark, flat, dark


def write_images(folder: Path, names, images, dtype=np.uint16, **options) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in zip(names, images, strict=True):
        values = np.rint(image) if np.dtype(dtype).kind != "f" else image
        tifffile.imwrite(folder / name, values.astype(dtype), photometric="minisblack", **options)


def write_folder(folder: Path, names, angles_deg, line, *, listed=None, flat="flat.tif", dark="dark.tif", **options):
    """Views in a folder of their own, beside flat, dark and the list of angles."""
    counts, open_beam, no_beam = counted(line)
    write_images(folder / "views", names, counts, **options)
    for name, image in ((flat, open_beam), (dark, no_beam)):
        place = folder / name
        write_images(place.parent, [place.name], [image], **options)
    listed = angles_deg if listed is None else listed
    (folder / "angles.txt").write_text("\n".join(repr(float(a)) for a in listed))
    return folder


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(np.ravel(a), np.ravel(b))[0, 1])


def told(scan) -> str:
    """All that a measurement's record says of guesses and repairs."""
    return "; ".join([*scan.provenance["guessed"], *scan.provenance["remarks"]])
