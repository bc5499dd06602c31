"""Where the samples of a readout lie on the encoded matrix: echoes off the middle, reversed lines, sampled ramps.

A mark such as ``center_sample`` means the sample of the lowest frequency.  Of a reversed readout some programs count it
in the order of acquisition, as ISMRMRD says, some after turning round, and Siemens from the other end; the samples
themselves tell which, because forward and reversed lines have their peak at the same place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ..errors import InputError
from .ramps import Ramp, regridding

_MOMENTS = (0.5, 0.0, 1.0)  # of its dwell time, when a sample counts as taken; programs differ
_GHOSTS = "no phase correction between forward and reversed lines; ghosts by half the field of view may remain"


class Marks(NamedTuple):
    """Of one readout, in the order of its samples: how many to leave out, its lowest frequency, its direction."""

    before: int
    after: int
    centre: int
    reverse: bool


class Placer:
    """Brings readouts to a matrix of ``columns``, of which ``keep`` are wanted; what it decides goes into the notes.

    ramp: the readout gradient, where samples were taken during its rise and fall.
    """

    def __init__(self, name: str, columns: int, keep: int, ramp: Ramp | None = None) -> None:
        self._name, self._columns, self._keep = name, columns, keep
        self._ramps = [] if ramp is None else [(r, m) for r in _delays(ramp) for m in _MOMENTS]
        self._centres: dict[tuple[int, int], int] = {}
        self._matrices: dict[bytes, np.ndarray] = {}
        self.guessed: list[str] = []
        self.remarks: list[str] = []
        if ramp is not None:
            self.remarks.append("echo-planar readout: its samples, taken on the ramps too, were brought to the grid")

    def learn(self, readouts: Callable[[], Iterable[tuple[np.ndarray, Marks]]], reverse: bool) -> None:
        """Look at all readouts once, where some are reversed; they settle what the marks leave open."""
        if not reverse:
            self._ramps = self._ramps[:1]
        elif self._ramps:
            self.remarks.append(_GHOSTS)
            self._learn_ramp(readouts())
        else:
            self._learn_centres(readouts())

    def place(self, samples: np.ndarray, marks: Marks, path: np.ndarray | None = None) -> tuple[np.ndarray, int]:
        """The samples (coils, n) to keep, in order, and the column of the first.

        path: the place of each sample in cells from the middle, where they do not lie on the grid.
        """
        stop = samples.shape[1] - marks.after
        if marks.before >= stop:
            raise InputError(f"{self._name}: a readout discards all of its samples")
        kept = samples[:, marks.before : stop]
        if path is None and self._ramps:
            path = self._path(*self._ramps[0], samples.shape[1], marks.reverse)
        if path is not None:
            return kept @ self._matrix(path[marks.before : stop]).T, 0
        if not marks.reverse:
            return kept, self._columns // 2 - marks.centre + marks.before
        centre = self._centres.get((samples.shape[1], marks.centre), samples.shape[1] - 1 - marks.centre)
        return kept[:, ::-1], self._columns // 2 - centre + marks.after

    # --- reversed lines

    def _learn_centres(self, readouts: Iterable[tuple[np.ndarray, Marks]]) -> None:
        profiles: dict[tuple[bool, int, int], np.ndarray] = {}
        for samples, marks in readouts:
            key = (marks.reverse, samples.shape[1], marks.centre)
            profiles[key] = profiles.get(key, 0) + (np.abs(samples).astype(np.float64) ** 2).sum(axis=0)
        forward = [(float(p.max()), p, key[2]) for key, p in profiles.items() if not key[0]]
        known = max(forward, key=lambda f: f[0])[1:] if forward else None
        for (reverse, count, centre), profile in profiles.items():
            if reverse:
                self._centres[count, centre] = self._centre(profile[::-1], centre, known)

    def _centre(self, turned: np.ndarray, centre: int, known: tuple[np.ndarray, int] | None) -> int:
        """The lowest frequency of reversed lines, once turned round, among what their mark can mean."""
        count = len(turned)
        standard = count - 1 - centre
        meant = dict.fromkeys([standard, count - centre, centre] if 2 * centre != count else [centre, standard])
        possible = [c for c in meant if 0 <= c < count]
        if known is None:
            best = min(possible, key=lambda c: abs(c - int(turned.argmax())))
        else:
            best = max(possible, key=lambda c: _agreement(*known, turned, c))
        if best not in (standard, centre if 2 * centre == count else standard):
            self.guessed.append(
                f"reversed lines have their lowest frequency at sample {count - 1 - best} of {count} (by their "
                f"strongest samples; their mark says {centre})"
            )
        return best

    # --- ramps

    def _learn_ramp(self, readouts: Iterable[tuple[np.ndarray, Marks]]) -> None:
        profiles = np.zeros((len(self._ramps), 2, self._columns))
        for samples, marks in readouts:
            stop = samples.shape[1] - marks.after
            for n, (ramp, moment) in enumerate(self._ramps):
                path = self._path(ramp, moment, samples.shape[1], marks.reverse)[marks.before : stop]
                on_grid = samples[:, marks.before : stop] @ self._matrix(path).T
                profiles[n, int(marks.reverse)] += (np.abs(on_grid).astype(np.float64) ** 2).sum(axis=0)
        middle = self._columns // 2
        scores = [_agreement(forward, middle, backward, middle) for forward, backward in profiles]
        best = int(np.argmax(scores))
        self._ramps = [self._ramps[best]]
        if best:
            ramp, moment = self._ramps[0]
            late = "in its middle" if ramp.delay is None else f"{ramp.delay:g} after its beginning"
            self.guessed.append(
                f"samples begin {late} of the readout gradient, each at {moment:g} of its dwell time (forward and "
                "reversed lines agree best so)"
            )

    def _path(self, ramp: Ramp, moment: float, samples: int, reverse: bool) -> np.ndarray:
        try:
            path = ramp.path(samples, self._columns, moment)
        except InputError as error:
            raise InputError(f"{self._name}: {error}") from None
        return -path if reverse else path

    def _matrix(self, path: np.ndarray) -> np.ndarray:
        key = np.round(path, 4).tobytes()
        if key not in self._matrices:
            try:
                self._matrices[key] = regridding(path, self._columns, self._keep)
            except InputError as error:
                raise InputError(f"{self._name}: {error}; regrid its readouts first") from None
        return self._matrices[key]


def _delays(ramp: Ramp) -> list[Ramp]:
    return [ramp] if ramp.delay is None else [ramp, replace(ramp, delay=None)]


def _agreement(first: np.ndarray, at: int, second: np.ndarray, other: int) -> float:
    """Correlation of two energy profiles whose lowest frequencies lie at these places, where both have samples."""
    before, after = min(at, other), min(len(first) - at, len(second) - other)
    a, b = (np.sqrt(p[c - before : c + after]) for p, c in ((first, at), (second, other)))
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / size if size > 0 else 0.0
