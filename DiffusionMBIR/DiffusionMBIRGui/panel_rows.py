"""The table of runs as the panel shows it: its columns, and a figure as text."""

from __future__ import annotations

import math
from typing import Any

from .texts import _

COLUMNS = ("name", "method", "seconds", "residual", "PSNR", "SSIM")  # of the table in the scene, which has more


def table_of(scene: Any) -> Any:
    """The scene's table of runs, None while there is none."""
    from .results import _node_of

    return _node_of(scene, "vtkMRMLTableNode", "results") if scene is not None else None


def rows_of(scene: Any) -> list[dict[str, Any]]:
    """The runs of a scene, oldest first."""
    from .results import ResultsTable

    return ResultsTable(scene).rows() if table_of(scene) is not None else []


def volume_of(scene: Any, row: int) -> Any:
    """The volume of a row, None where it was deleted."""
    from .results import ResultsTable

    return ResultsTable(scene).volume(row) if table_of(scene) is not None else None


def cell(name: str, value: Any) -> str:
    """A table's cell for people; '-' for what is not known."""
    if isinstance(value, str):
        return value
    if not math.isfinite(value):
        return "-"
    return {"seconds": f"{value:.1f} s", "residual": f"{value:.2e}", "PSNR": f"{value:.2f}"}.get(name, f"{value:.3f}")


def cell_tip(name: str, value: Any) -> str:
    """What a cell says when it is pointed at: a figure that is not known has a reason."""
    if isinstance(value, str) or not math.isnan(value):
        return cell(name, value)
    if name in ("PSNR", "SSIM"):
        return _("Not known: this run had no volume to be judged by, or one of another region")
    return _("Not known: this method does not tell it")
