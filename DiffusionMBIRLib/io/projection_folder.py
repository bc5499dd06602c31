"""A folder of TIFF projections: which images are views, flat and dark ones, and in what order they were taken."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..host_memory import require_room
from ..preparation.angles import in_degrees, of_the_views, perhaps_radians
from ..preparation.parallel import ParallelScan
from .tiff import is_tiff, read_tiff
from .view_order import angles_in_names, orders_by_name

ANGLES = "angles.txt"
_LARGEST_TEXT = 1 << 22
_WORDS = {
    "flat": ("flat", "flats", "flatfield", "white", "whites", "openbeam", "ob", "brightfield", "whitefield", "ff"),
    "dark": ("dark", "darks", "darkfield", "df"),
}
LAYOUT = f"views as TIFF here or in one folder, flat*.tif and dark*.tif or folders Flat... and Dark..., and {ANGLES}"


@dataclass
class FolderImages:
    """The TIFF files of a folder and of the folders in it."""

    views: list[Path] = field(default_factory=list)
    flats: list[Path] = field(default_factory=list)
    darks: list[Path] = field(default_factory=list)

    @property
    def folders(self) -> str:
        """Where they lie, for a message."""
        places: dict[Path, int] = {}
        for path in (*self.views, *self.flats, *self.darks):
            places[path.parent] = places.get(path.parent, 0) + 1
        return ", ".join(f"{folder.name} ({count})" for folder, count in places.items())


def images_in(folder: Path) -> FolderImages:
    """Sort a folder's TIFF files by their names, and those one folder below by that folder's name too."""
    found = FolderImages()
    below = sorted((p for p in folder.iterdir() if p.is_dir() and not p.is_symlink()), key=lambda p: p.name)
    for place in (folder, *below):
        files = sorted(p for p in place.iterdir() if is_tiff(p))
        for path in files:
            role = _role(path.stem) or (_role(place.name) if place is not folder else "")
            {"flat": found.flats, "dark": found.darks}.get(role, found.views).append(path)
    return found


def _role(name: str) -> str:
    """'flat', 'dark' or '' by the words of a name."""
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
    pairs = [a + b for a, b in pairwise(words)]  # OpenBeam, white_field
    for role, known in _WORDS.items():
        if any(word in known for word in (*words, *pairs)) or (words and words[0].startswith(role)):
            return role
    return ""


def read_folder(folder: Path) -> ParallelScan:
    """Read views, flat and dark images.  Raises InputError for what is missing or does not fit."""
    listed = folder / ANGLES
    images = images_in(folder)
    if not listed.is_file():
        there = f" beside the TIFF images ({images.folders})" if images.views else ""
        raise InputError(f"{folder}: lacks {ANGLES}, one angle in degrees a line{there}")
    if not images.views:
        raise InputError(f"{folder}: holds no projections; needed are {LAYOUT}")
    _require_references(folder, images)
    return _scan(folder, images, read_angles(listed))


def read_sinogram(path: Path) -> ParallelScan:
    """One TIFF file of a sinogram or a stack of views, with the list of angles (and flat and dark images) beside it."""
    listed = path.parent / ANGLES
    if not listed.is_file():
        raise InputError(f"{path}: lacks the list {ANGLES} beside it, one angle in degrees a line")
    beside = images_in(path.parent)
    images = FolderImages([path], [p for p in beside.flats if p != path], [p for p in beside.darks if p != path])
    return _scan(path, images, read_angles(listed))


def _require_references(folder: Path, images: FolderImages) -> None:
    for what, found in (("flat", images.flats), ("dark", images.darks)):
        other = images.darks if what == "flat" else images.flats
        if not found and (other or not _is_float(images.views[0])):
            raise InputError(
                f"{folder}: holds no {what} images ({what}*.tif, or a folder {what.title()}...) beside {images.folders}"
            )


def _is_float(path: Path) -> bool:
    return read_tiff(path).dtype.kind == "f"


def read_angles(path: Path) -> np.ndarray:
    """The numbers of a text file.  Raises InputError for anything else in it."""
    try:
        if path.stat().st_size > _LARGEST_TEXT:
            raise ValueError
        return np.array([float(word) for word in path.read_text(encoding="utf-8-sig").split()])
    except (ValueError, OSError):
        raise InputError(f"{path}: must hold one angle in degrees a line, nothing else") from None


def _scan(name: Path, images: FolderImages, listed: np.ndarray) -> ParallelScan:
    angles, guess, doubt = in_degrees(listed)
    scan = ParallelScan(str(name), "TIFF", np.zeros(0), None, None, angles)
    scan.guessed += [guess] if guess else []
    scan.remarks += [doubt] if doubt else []
    stems = [p.stem for p in images.views]
    orders = orders_by_name(stems) if len(stems) > 1 else []
    views = [images.views[k] for k in orders[0].index] if orders else images.views
    scan.counts = _stacked(views, name, len(angles), scan)
    if images.flats and images.darks:
        scan.flats, darks = (_images(group, scan.counts.shape[1:]) for group in (images.flats, images.darks))
        scan.flat, scan.dark = _mean(scan.flats), _mean(darks)
    scan.angles_deg, remark = of_the_views(angles, len(scan.counts), _with_folders(name, images), ANGLES)
    scan.remarks += [remark] if remark else []
    scan.alternatives += [] if guess else perhaps_radians(scan.angles_deg, "")
    if len(views) == len(scan.counts) and orders:
        _note_orders(scan, [p.stem for p in views], [views.index(p) for p in images.views], orders)
    return scan


def _with_folders(name: Path, images: FolderImages) -> str:
    places = {p.parent for p in images.views}
    return f"{name} ({images.folders})" if len(places) > 1 else str(name)


def _note_orders(scan: ParallelScan, stems: list[str], place: list[int], orders: list) -> None:  # type: ignore[type-arg]
    """Angles by the names themselves where they hold them, and other orders that the names allow.

    place: where each of the files that ``orders`` counts lies among the views.
    """
    angles = scan.angles_deg
    named = angles_in_names(stems, angles)
    if named is not None and not np.array_equal(named, angles):
        scan.guessed.append("each view has the angle that its name holds, whatever its place in the list")
        scan.alternatives.append((angles, "views in the order of the list of angles, not by the angles in their names"))
        scan.angles_deg = named
        return
    for order in orders[1:]:
        other = np.empty(len(angles))
        other[[place[k] for k in order.index]] = angles
        scan.alternatives.append((other, f"views ordered by {order.how}"))
    if len(orders) > 1:
        scan.guessed.append(f"views in the order of {orders[0].how}, from {stems[0]} to {stems[-1]}")


def _stacked(files: list[Path], name: Path, angles: int, scan: ParallelScan) -> np.ndarray:
    """The views (views, rows, columns) of one image a view, of one stack, or of one sinogram a slice."""
    first = read_tiff(files[0])
    if first.ndim == 3:
        if len(files) > 1:
            raise InputError(f"{name}: holds {len(files)} stacks of views; leave the one to use")
        scan.source = "TIFF stack"
        return _like(files[0], first.shape)
    require_room(str(name), (len(files), *first.shape), 8)
    images = np.stack([_like(p, first.shape) for p in files])
    if len(files) > 1 and (len(files) == angles or first.shape[0] != angles):
        scan.source = "TIFF folder"
        return images
    scan.source = "TIFF sinogram"
    if first.shape[0] != angles == first.shape[1]:
        scan.guessed.append("sinogram stored as columns x views")
        images = images.swapaxes(1, 2)
    return np.ascontiguousarray(images.swapaxes(0, 1))


def _like(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    image = read_tiff(path)
    if image.shape != shape:
        raise InputError(f"{path}: is an image of {image.shape}; one grey image of {shape} is needed")
    with np.errstate(over="ignore"):  # what leaves the range of float32 is told as not finite
        return image.astype(np.float32)


def _mean(images: np.ndarray) -> np.ndarray:
    return np.asarray(images.mean(axis=0, dtype=np.float64), dtype=np.float32)


def _images(files: list[Path], shape: tuple[int, ...]) -> np.ndarray:
    """All images of the files: (images, rows, columns).  Of one slice every row of an image is a reading."""
    stacks = []
    for path in files:
        image = read_tiff(path)
        stack = image if image.ndim == 3 else image[None]
        if shape[0] == 1 and stack.shape[1] > 1:
            stack = stack.reshape(-1, 1, stack.shape[2])
        if stack.shape[1:] != shape:
            raise InputError(f"{path}: is an image of {image.shape}; one grey image of {shape} is needed")
        stacks.append(stack)
    return np.concatenate(stacks)
