"""What a user tells of a k-space file that does not say it itself: of samples along a trajectory.  Needs no Qt."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from DiffusionMBIRLib.config import setting
from DiffusionMBIRLib.io.trajectory_units import AXES, UNITS

if TYPE_CHECKING:
    from .parameters import Parameters

UNTOLD = "auto"


@dataclass(frozen=True)
class ToldFile:
    """Settings by the names of the engine's ``ToldTrajectory``, but for ``trajectory``, which a simulated scan has."""

    trajectory_file: str = setting(
        "", "Trajectory file", "Of k-space along a trajectory that lies in another file (.npy, .mat, .cfl)."
    )
    trajectory_unit: str = setting(
        UNTOLD, "Unit of k", "Of a file's trajectory; auto: told by its largest |k|.", choices=(UNTOLD, *UNITS)
    )
    trajectory_axes: str = setting(
        UNTOLD,
        "Axes of k",
        "What a file's two coordinates are; of an image that is transposed yx, of a mirrored one with a minus.",
        choices=(UNTOLD, *AXES),
    )
    fov_mm: float = setting(0.0, "Field of view", "Of a k-space file; 0: as it says.", unit="mm", range=(0.0, 5000.0))
    matrix: int = setting(0, "Matrix", "Pixels along rows and columns; 0: as a k-space file says.", range=(0, 4096))
    delays: str = setting(UNTOLD, "Gradient delays", "Of spokes in samples: auto, off or SX,SY,SXY.")
    shift_mm: str = setting("", "Shift", "X,Y in mm by which the image is moved in its plane.")
    angles: str = setting("", "Spoke angles", "Of Siemens raw data: golden, tiny-N, uniform or degrees a spoke.")
    sequence: str = setting("", "Sequence", "Pulseq file (.seq) of Siemens raw data.")


def told_of_file(parameters: Parameters) -> dict[str, Any]:
    """What was told of the file that is chosen, as keywords of the engine's ``read``; empty for other inputs."""
    if parameters.get("source") != "k-space" or not parameters.input_file:
        return {}
    values = {item.name: parameters.get(item.name) for item in fields(ToldFile)}
    given = {name: value for name, value in values.items() if value not in ("", UNTOLD, 0)}
    return {"trajectory" if name == "trajectory_file" else name: value for name, value in given.items()}


def options_of(told: dict[str, Any]) -> list[str]:
    """The same as options of the command line."""
    return [f"--{name.replace('_', '-')}={value}" for name, value in told.items()]
