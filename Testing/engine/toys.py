"""A scanner, a method and a file format that exist in tests alone: each is its own class and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from DiffusionMBIRLib.formats import CT, Format, forget_format, register
from DiffusionMBIRLib.geometry import Grid, ParallelBeam, Poses, RayGeometry, forget_geometry
from DiffusionMBIRLib.methods import Method, forget_method
from DiffusionMBIRLib.methods.run import Estimate
from DiffusionMBIRLib.operators import LinearOperator, Space
from DiffusionMBIRLib.operators.projector import forget_projectors, projects
from DiffusionMBIRLib.scans import Measurement


@contextmanager
def tilted_beam() -> Iterator[type[RayGeometry]]:
    """A parallel beam whose flat detector of many rows is turned in its own plane, so that slices mix in the data."""

    @dataclass(frozen=True, eq=False)
    class TiltedBeam(RayGeometry):
        KIND: ClassVar[str] = "tilted-beam"
        LABEL: ClassVar[str] = "Tilted beam"
        STACKED: ClassVar[bool] = False

        rows: int
        columns: int
        row_mm: float
        column_mm: float
        tilt_deg: float = 15.0

        @property
        def detector(self) -> tuple[int, int]:
            return self.rows, self.columns

        def poses(self) -> Poses:
            theta, tilt = np.radians(self.angles_deg)[:, None], np.radians(self.tilt_deg)
            across = np.concatenate([np.cos(theta), np.sin(theta), 0 * theta], axis=1)
            along = np.concatenate([-np.sin(theta), np.cos(theta), 0 * theta], axis=1)
            up = np.array([0.0, 0.0, 1.0])
            u = np.cos(tilt) * across + np.sin(tilt) * up
            v = np.cos(tilt) * up - np.sin(tilt) * across
            return Poses(0 * across, u * self.column_mm, v * self.row_mm, direction=along)

        def divided(self, parts: int) -> TiltedBeam:
            return replace(self, columns=self.columns * parts, column_mm=self.column_mm / parts)

        @classmethod
        def covering(cls, grid: Grid, angles_deg: Sequence[float]) -> TiltedBeam:
            x, y, z = grid.spacing_mm
            slices, rows, columns = grid.shape
            reach = np.hypot(columns * x, rows * y) + 2 * np.hypot(*grid.off_isocentre_mm[:2])
            height = slices * z + 2 * abs(grid.off_isocentre_mm[2])
            pitch, tilt = min(x, y), np.radians(cls.tilt_deg)
            wide, high = (c * np.cos(tilt) + s * np.sin(tilt) for c, s in ((reach, height), (height, reach)))
            return cls(tuple(angles_deg), int(high / z) + 3, int(wide / pitch) + 3, z, pitch)

    @projects(TiltedBeam)
    class Splat(LinearOperator):
        """Each voxel's mass, on the four detector pixels around where the poses put it."""

        def __init__(self, geometry: RayGeometry, grid: Grid, *, device: Any = "cpu", dtype: Any = torch.float32):
            volumes = Space(grid.shape, dtype, torch.device(device))
            super().__init__(volumes, replace(volumes, shape=geometry.data_shape(grid.shape[0])))
            index = np.indices(grid.shape).reshape(3, -1)[::-1].T
            half = (np.array(grid.shape[::-1]) - 1) / 2
            points, poses = (index - half) * grid.spacing_mm + grid.off_isocentre_mm, geometry.poses()
            rows, columns = geometry.detector
            rays, voxels, values = [], [], []
            for view in range(geometry.views):
                u, v = poses.u[view], poses.v[view]
                column = (points - poses.centre[view]) @ u / (u @ u) + (columns - 1) / 2
                row = (points - poses.centre[view]) @ v / (v @ v) + (rows - 1) / 2
                mass = np.prod(grid.spacing_mm) / (np.linalg.norm(u) * np.linalg.norm(v))
                for r in (np.floor(row), np.floor(row) + 1):
                    for c in (np.floor(column), np.floor(column) + 1):
                        kept = (r >= 0) & (r < rows) & (c >= 0) & (c < columns)
                        share = (1 - abs(row - r)) * (1 - abs(column - c)) * mass
                        rays.append(((r * geometry.views + view) * columns + c)[kept])
                        voxels.append(np.flatnonzero(kept))
                        values.append(share[kept])
            self.rays, self.voxels = (torch.from_numpy(np.concatenate(k).astype(np.int64)) for k in (rays, voxels))
            self.values = torch.from_numpy(np.concatenate(values)).to(dtype)

        def forward(self, x: Tensor) -> Tensor:
            self.domain.check(x, "x")
            out = self.range.zeros().view(-1)
            return out.index_add_(0, self.rays, x.reshape(-1)[self.voxels] * self.values).view(self.range.shape)

        def adjoint(self, y: Tensor) -> Tensor:
            self.range.check(y, "y")
            out = self.domain.zeros().view(-1)
            return out.index_add_(0, self.voxels, y.reshape(-1)[self.rays] * self.values).view(self.domain.shape)

    try:
        yield TiltedBeam
    finally:
        forget_projectors(TiltedBeam)
        forget_geometry(TiltedBeam.KIND)


@contextmanager
def landweber() -> Iterator[type[Method]]:
    """Steps down the gradient; takes its number of steps from a setting that is there."""

    class Landweber(Method):
        name: ClassVar[str] = "landweber"
        label: ClassVar[str] = "Steps down (Landweber)"
        takes: ClassVar[tuple[str, ...]] = ("CT",)
        settings: ClassVar[tuple[str, ...]] = ("sirt_iterations",)
        volumes: ClassVar[int] = 3
        order: ClassVar[int] = 55

        def work(self, settings: Any) -> dict[str, tuple[str, float]]:
            return {"landweber": ("step", settings.sirt_iterations)}

        def run(self, problem: Any, settings: Any, run: Any) -> Estimate:
            x, gradient = problem.A.domain.zeros(), problem.A.gradients(problem.y)
            for step in range(settings.sirt_iterations):
                x = x - gradient(x)
                run.monitor.tick("landweber", step + 1, settings.sirt_iterations)
            return Estimate(x)

    try:
        yield Landweber
    finally:
        forget_method(Landweber.name)


SUFFIX = ".sino"


def write_sino(scan: Measurement, path: Path) -> None:
    """Text: the geometry, then numbers."""
    g = scan.geometry
    assert isinstance(g, ParallelBeam)
    head = {"angles": list(g.angles_deg), "pitch": g.pitch_mm, "shape": list(scan.data.shape)}
    path.write_text(json.dumps(head | {"data": scan.data.ravel().tolist()}), encoding="utf-8")


@contextmanager
def sino_files(recognises: Callable[[Path], bool] = lambda path: True) -> Iterator[Format]:
    """Sinograms as text."""

    def read(path: Path) -> Measurement:
        told = json.loads(path.read_text(encoding="utf-8"))
        data = np.array(told["data"], np.float32).reshape(told["shape"])
        slices, _, columns = data.shape
        grid = Grid((slices, columns, columns), (told["pitch"], told["pitch"], told["pitch"]))
        return Measurement(data, ParallelBeam(tuple(told["angles"]), columns, told["pitch"]), grid, name=path.name)

    entry = Format("sinograms as text", CT, (SUFFIX,), read, recognises)
    register(entry)
    try:
        yield entry
    finally:
        forget_format(entry.name)
