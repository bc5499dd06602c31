"""Synthetic training images of a machined part: a disc of one material with holes, as phantoms of acrylic have them.

Holes are star-shaped about their middles: ellipses, boxes, blobs and crosses, mostly all alike and turned the same
way, scattered or in rows.  Where they would run into each other a wall stays between them, as between cells.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

MATERIAL = (0.47, 0.53)  # value of the disc: of a material that stands where water does 0.5
RADII, CENTRE = (0.6, 0.97), 0.06  # in halves of the image, as all lengths here
USUAL_RADIUS, USUAL = (0.905, 0.935), 0.9  # what most discs have, to fill the image, and how many of them
ELLIPSES, BOXES, BLOBS, CROSSES, CELLS = KINDS = ("ellipses", "boxes", "blobs", "crosses", "cells")
SHARES = (0.16, 0.18, 0.18, 0.34, 0.14)  # of the kinds
WALL, RIM = (0.04, 0.12), (0.11, 0.21)  # thickness between holes and around them, in radii
ROW_STEP = 0.4  # the least from hole to hole in rows, over their reach: at most some twenty holes
ROUNDED = (0.0, 0.045)  # radii of corners
_FAR = 9.0  # the gauge where no hole is near
_NEAR = 2.2  # the largest gauge that matters: at which a neighbour as large still leaves a wall


@dataclass(frozen=True)
class _Hole:
    """One hole: its gauge is 1 at its edge.  size, stretch: half widths are size x sqrt(stretch), size / sqrt(stretch).

    power: of a box (shear: how far it leans), 0 for harmonics, by their (amplitude, phase) from the second on.
    """

    y: float
    x: float
    size: float
    stretch: float
    angle: float
    power: float = 0.0
    shear: float = 0.0
    harmonics: tuple[tuple[float, float], ...] = ()

    @property
    def reach(self) -> float:
        most = 1 + sum(abs(a) for a, _ in self.harmonics) + abs(self.shear)
        return min(2.0, _NEAR * self.size * math.sqrt(self.stretch) * most)

    def gauge(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """At rows y (n, 1) and columns x (1, n)."""
        c, s, root = math.cos(self.angle), math.sin(self.angle), math.sqrt(self.stretch)
        dy, dx = y - np.float32(self.y), x - np.float32(self.x)
        u = dx * np.float32(c / self.size / root) + dy * np.float32(s / self.size / root)
        v = dy * np.float32(c * root / self.size) - dx * np.float32(s * root / self.size)
        if self.power:
            u = np.abs(u + np.float32(self.shear) * v)
            return np.asarray((u**self.power + np.abs(v) ** self.power + 1e-9) ** (1 / self.power))
        far = np.sqrt(u * u + v * v + 1e-9)
        if not self.harmonics:
            return far
        turn = (u + 1j * v).astype(np.complex64) / far
        turned, edge = turn, np.ones_like(far)
        for amplitude, phase in self.harmonics:
            turned = turned * turn
            edge += np.float32(amplitude) * (turned * np.complex64(complex(math.cos(phase), math.sin(phase)))).real
        return np.asarray(far / np.maximum(edge, np.float32(0.25)))


def holed_disc(size: int, generator: np.random.Generator) -> Tensor:
    """An image (size, size) in the value scale, 0 in the holes and around the disc; edges are a pixel wide."""
    g = generator
    radius = g.uniform(*(USUAL_RADIUS if g.random() < USUAL else RADII))
    cy, cx = g.uniform(-1, 1, 2) * min(CENTRE, 0.99 - radius)
    axis = ((np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1).astype(np.float32)
    y, x = axis[:, None], axis[None]
    from_centre = np.hypot(y - np.float32(cy), x - np.float32(cx))
    typical, holes = _holes(radius, cy, cx, g)
    nearest, next_one = (np.full((size, size), _FAR, np.float32) for _ in range(2))
    for hole in holes:
        rows, columns = (_window(axis, at, hole.reach) for at in (hole.y, hole.x))
        gauge, first, second = hole.gauge(y[rows], x[:, columns]), nearest[rows, columns], next_one[rows, columns]
        np.minimum(second, np.maximum(first, gauge), out=second)
        np.minimum(first, gauge, out=first)
    wall, rim = radius * g.uniform(*WALL), radius * g.uniform(*RIM)
    depth = np.minimum((1 - nearest) * typical, ((next_one - nearest) * typical - wall) / 2)  # in the hole
    depth = np.minimum(depth, radius - rim - from_centre)
    hole_share = torch.from_numpy(np.clip(depth * size + 0.5, 0, 1))
    hole_share = _rounded(hole_share, round(g.uniform(*ROUNDED) * size / 2))
    body = torch.from_numpy(np.clip((radius - from_centre) * size / 2 + 0.5, 0, 1))
    return body * (1 - hole_share) * g.uniform(*MATERIAL)


def _window(axis: np.ndarray, at: float, reach: float) -> slice:
    low, high = np.searchsorted(axis, (at - reach, at + reach))
    return slice(int(low), int(high))


def _rounded(share: Tensor, pixels: int) -> Tensor:
    """With corners rounded by so many pixels."""
    if pixels < 1:
        return share
    mean = F.avg_pool2d(share[None, None], 2 * pixels + 1, 1, pixels)[0, 0]
    return ((mean - 0.5) * (2 * pixels) + 0.5).clamp_(0, 1)


def _holes(radius: float, cy: float, cx: float, g: np.random.Generator) -> tuple[float, list[_Hole]]:
    """(their typical size, holes)"""
    kind = KINDS[g.choice(len(KINDS), p=SHARES)]
    count = int(g.integers(8, 20) if kind == CELLS else g.integers(7, 18) if kind == CROSSES else g.integers(1, 15))
    # A share of the disc that is hole; cells leave little else than walls.
    share = g.uniform(0.55, 0.75) if kind == CELLS else math.exp(g.uniform(math.log(0.012 * count), math.log(0.45)))
    typical = radius * math.sqrt(min(share, 0.045 * count) / count)
    stretch = math.exp(g.uniform(0, 0.35 if kind == CELLS else 1.0))
    common, alike = g.uniform(0, math.pi), g.random() < 0.85
    spread = 0.12 if g.random() < 0.6 else 0.3
    pattern = _harmonics(kind, g)
    apart = typical * (g.uniform(2.0, 2.6) if kind == CROSSES else g.uniform(1.7, 2.3))
    places = _places(count, radius * g.uniform(0.74, 0.86), apart, stretch, common, g)
    holes = []
    for py, px in places:
        holes.append(
            _Hole(
                cy + py, cx + px, typical * math.exp(spread * g.normal()), stretch * math.exp(spread * g.normal()),
                common + spread * g.normal() if alike else g.uniform(0, math.pi),
                power=g.uniform(3, 8) if kind == BOXES else 0.0,
                shear=0.25 * g.normal() if kind == BOXES else 0.0,
                harmonics=tuple((a + (0.03 + 0.25 * abs(a)) * g.normal(), p + 0.3 * g.normal()) for a, p in pattern),
            )
        )  # fmt: skip
    return typical, holes


def _harmonics(kind: str, g: np.random.Generator) -> list[tuple[float, float]]:
    """What the outlines of a kind have in common, from the second harmonic on."""
    if kind in (ELLIPSES, BOXES):
        return []
    size = {CELLS: 0.04, CROSSES: 0.07, BLOBS: 0.12}[kind]
    pattern = [(size * g.normal() * 2 / k, g.uniform(0, 2 * math.pi)) for k in range(2, 7)]
    if kind == CROSSES:  # lobes to the corners; with a second harmonic bow-ties
        pattern[2] = (g.uniform(0.12, 0.5), math.pi)
    return pattern


def _places(
    count: int, reach: float, apart: float, stretch: float, angle: float, g: np.random.Generator
) -> list[tuple[float, float]]:
    """Middles (y, x) from the disc's own, at least ``apart`` from each other in coordinates stretched as holes are:
    in staggered rows, or each the farthest from the others of some random ones.
    """
    root = math.sqrt(stretch)
    c, s = math.cos(angle), math.sin(angle)

    def within(u: float, v: float) -> tuple[float, float] | None:
        """Along and across the holes to (y, x)."""
        along, across = u * root, v / root
        py, px = along * s + across * c, along * c - across * s
        return (py, px) if math.hypot(py, px) < reach else None

    if g.random() < 0.4:
        step = max(apart * g.uniform(1.0, 1.35), reach * ROW_STEP)
        rows = range(-12, 13)
        off, half = g.uniform(0, 1, 2), 0.5 if g.random() < 0.8 else 0.0
        lattice = [
            within((k + off[0] + half * (j % 2) + 0.08 * g.normal()) * step, (j + off[1] + 0.05 * g.normal()) * step)
            for j in rows
            for k in rows
        ]
        places = [p for p in lattice if p is not None]
        g.shuffle(places)
        return places[: round(g.uniform(0.7, 1.0) * len(places))]
    taken: list[tuple[float, float]] = []
    best: list[tuple[float, float]] = []
    for _ in range(count):
        tries = g.uniform(-reach * 2, reach * 2, (40, 2))
        found = [(p, (u, v)) for u, v in tries if (p := within(u, v)) is not None]
        if not found:
            continue
        gaps = [min((math.hypot(u - a, v - b) for a, b in taken), default=_FAR) for _, (u, v) in found]
        near = [k for k, gap in enumerate(gaps) if gap > apart]
        if not near:
            continue
        # crowded: as near as is allowed; else anywhere that is free
        chosen = near[int(g.integers(len(near)))]
        best.append(found[chosen][0])
        taken.append(found[chosen][1])
    return best
