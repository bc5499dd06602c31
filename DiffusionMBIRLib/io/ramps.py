"""Readouts that were sampled while their gradient rose and fell, as echo-planar ones are, onto the Cartesian grid.

A sample's place k in k-space follows from the area below the gradient; it is counted in cycles per encoded field of
view, so that the grid has the spacing 1.  The signal of an object within that field is E m with
E[n, x] = exp(-2 pi i k_n x / N) / sqrt(N); least squares give m, and its Fourier transform the samples on the grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..sensitivity import centred_fft

_LARGEST_CONDITION = 10.0  # of E; above, noise is amplified more than the samples are worth
_EVEN = 0.02  # of a step, up to which samples lie on a grid


@dataclass(frozen=True)
class Ramp:
    """A readout gradient that rises, stays and falls, and when its samples were taken; all times in one unit.

    delay: from the beginning of the gradient to that of the first sample; None: samples lie in the gradient's middle.
    sine: the ramps are quarters of a sine instead of straight.
    """

    up: float
    flat: float
    down: float
    dwell: float
    delay: float | None = None
    sine: bool = False

    @property
    def length(self) -> float:
        return self.up + self.flat + self.down

    def path(self, samples: int, cells: float, moment: float = 0.5) -> np.ndarray:
        """Place of each sample, when the readout covers so many cells; 0 is the middle of the gradient's area.

        moment: when within its dwell time a sample was taken.  Raises InputError where the times contradict each other.
        """
        duration = self.dwell * samples
        if not (min(self.up, self.flat, self.down) >= 0 < duration and self.length > 0):
            raise InputError("the times of its readout gradient are not positive")
        delay = (self.length - duration) / 2 if self.delay is None else self.delay
        if delay < -self.dwell or delay + duration > self.length + self.dwell:
            raise InputError(
                f"a readout of {samples} samples takes {duration:g}, its gradient only {self.length:g} of the same unit"
            )
        covered = self._area(np.array([delay, delay + duration]))
        times = delay + (np.arange(samples) + moment) * self.dwell
        places: np.ndarray = (self._area(times) - self._area(np.array([self.length])) / 2) * cells / np.ptp(covered)
        return places

    def on_flat_top(self, samples: int) -> bool:
        """True where every sample was taken at the full gradient, so that they are even by themselves."""
        duration = self.dwell * samples
        delay = (self.length - duration) / 2 if self.delay is None else self.delay
        return self.up <= delay + self.dwell / 2 and delay + duration <= self.up + self.flat + self.dwell / 2

    def _area(self, times: np.ndarray) -> np.ndarray:
        """Below the gradient of height 1, from its beginning."""
        rise = np.clip(times, 0, self.up)
        stay = np.clip(times - self.up, 0, self.flat)
        left = np.clip(self.length - times, 0, self.down)  # of the time in which it falls
        area: np.ndarray = self._below(rise, self.up) + stay
        return area + self._below(np.array(self.down), self.down) - self._below(left, self.down)

    def _below(self, time: np.ndarray, ramp: float) -> np.ndarray:
        if ramp <= 0:
            return np.zeros_like(time)
        if self.sine:
            return ramp * (1 - np.cos(np.pi / 2 * time / ramp)) * 2 / np.pi
        return time**2 / (2 * ramp)


def is_even(path: np.ndarray) -> bool:
    """True where the steps from sample to sample are one cell."""
    return bool(np.abs(np.abs(np.diff(path)) - 1).max(initial=0) <= _EVEN)


def regridding(path: np.ndarray, columns: int, keep: int) -> np.ndarray:
    """complex64 (columns, samples): the matrix that takes samples at ``path`` to the grid of ``columns`` cells.

    keep: the columns of the image that are wanted.  Where the samples do not suffice for all columns, the object is
    taken to lie within these.  Raises InputError where they do not suffice for these either.
    """
    grid = np.arange(columns) - columns // 2
    for wide in (columns, keep):
        first = columns // 2 - wide // 2
        inside = slice(first, first + wide)
        model = np.exp(-2j * np.pi / columns * np.outer(path, grid[inside])) / np.sqrt(columns)
        left, values, right = np.linalg.svd(model, full_matrices=False)
        if len(path) >= wide and values[-1] * _LARGEST_CONDITION >= values[0]:
            image = np.zeros((columns, len(path)), dtype=np.complex128)
            image[inside] = (right.conj().T / values) @ left.conj().T
            return centred_fft(image, axes=(0,)).astype(np.complex64)
    raise InputError(f"{len(path)} samples along the readout do not suffice for {keep} columns")
