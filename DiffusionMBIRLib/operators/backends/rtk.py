"""RTK (openrtk.org): Joseph's projector and its transpose on CPUs, as an optional back end of cone beams."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import InputError
from ...geometry import Grid, PointSource, Poses
from ..base import LinearOperator
from ..projector import projects
from ..space import Space
from ..stack import require_float32


def import_rtk() -> tuple[Any, Any]:
    """The modules ``itk`` and ``itk.RTK``; raises InputError with the install line where they are missing."""
    try:
        import itk
        from itk import RTK
    except ImportError as error:
        raise InputError("back end 'rtk' needs RTK: pip install itk-rtk (or use projector own)") from error
    return itk, RTK


@projects(PointSource, "rtk")
class RTKTransform(LinearOperator):
    """Line integrals of volumes: (slices, rows, columns) in 1/mm -> (detector rows, views, columns), without unit.

    Joseph's method follows the ray through the middle of each detector cell; its transpose has the same weights, so the
    adjoint is exact up to rounding.  Tensors go through main memory.  Raises InputError where RTK is missing, for types
    other than float32 and for curved detectors.
    """

    def __init__(
        self,
        geometry: PointSource,
        grid: Grid,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._itk, self._rtk = import_rtk()
        require_float32("rtk", dtype)
        geometry.require_in_sight(grid)
        poses = geometry.poses()
        if poses.arc:
            raise InputError("back end 'rtk' takes flat detectors only; use projector own")
        volumes = Space(grid.shape, dtype, torch.device(device))
        super().__init__(volumes, Space(geometry.data_shape(grid.shape[0]), dtype, volumes.device))
        self.geometry, self.grid = geometry, grid
        self._image = self._itk.Image[self._itk.F, 3]
        self._turned = self._geometry_of(poses)

    def _geometry_of(self, poses: Poses) -> Any:
        assert poses.source is not None
        found = self._rtk.ThreeDCircularProjectionGeometry.New()
        along_u, along_v = (axis / np.linalg.norm(axis, axis=1, keepdims=True) for axis in (poses.u, poses.v))
        for source, middle, u, v in zip(poses.source, poses.centre, along_u, along_v, strict=True):
            places = [self._itk.Point[self._itk.D, 3](_to_rtk(p).tolist()) for p in (source, middle)]
            axes = [self._itk.Vector[self._itk.D, 3](_to_rtk(a).tolist()) for a in (u, v)]
            if not found.AddProjection(*places, *axes):
                raise InputError("back end 'rtk' refuses the geometry; use projector own")
        return found

    def forward(self, x: Tensor) -> Tensor:
        self.domain.check(x, "x")
        joseph = self._rtk.JosephForwardProjectionImageFilter[self._image, self._image].New()
        joseph.SetInput(0, self._stack(np.zeros(self.range.shape, np.float32)))
        joseph.SetInput(1, self._volume(_numbers(x)))
        found = self._result(joseph)
        return torch.from_numpy(np.ascontiguousarray(found.transpose(1, 0, 2))).to(self.device)

    def adjoint(self, y: Tensor) -> Tensor:
        self.range.check(y, "y")
        joseph = self._rtk.JosephBackProjectionImageFilter[self._image, self._image].New()
        joseph.SetInput(0, self._volume(np.zeros(self.domain.shape, np.float32)))
        joseph.SetInput(1, self._stack(_numbers(y)))
        found = self._result(joseph)
        return torch.from_numpy(np.ascontiguousarray(found[::-1].transpose(1, 0, 2))).to(self.device)

    def _result(self, joseph: Any) -> np.ndarray:
        joseph.SetGeometry(self._turned)
        joseph.Update()
        found: np.ndarray = self._itk.array_from_image(joseph.GetOutput())
        return found

    def _volume(self, x: np.ndarray) -> Any:
        """RTK's axes are (x, z, -y) of ours."""
        (dx, dy, dz), (ox, oy, oz) = self.grid.spacing_mm, self.grid.off_isocentre_mm
        return self._filled(x.transpose(1, 0, 2)[::-1], (dx, dz, dy), (ox, oz, -oy))

    def _stack(self, y: np.ndarray) -> Any:
        pitches = (self.geometry.pitch_mm, self.geometry.row_pitch_mm, 1.0)
        return self._filled(y.transpose(1, 0, 2), pitches, (0.0, 0.0, 0.0))

    def _filled(self, array: np.ndarray, spacing: tuple[float, ...], middle: tuple[float, ...]) -> Any:
        image = self._itk.image_from_array(np.ascontiguousarray(array))
        image.SetSpacing(list(spacing))
        half = (np.asarray(array.shape[::-1]) - 1) / 2
        image.SetOrigin((np.asarray(middle) - half * spacing).tolist())
        return image


def _to_rtk(vector: np.ndarray) -> np.ndarray:
    """A place or direction in RTK's axes."""
    x, y, z = vector
    return np.array([x, z, -y])


def _numbers(x: Tensor) -> np.ndarray:
    array: np.ndarray = x.detach().cpu().numpy()
    return array
