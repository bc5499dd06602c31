"""The value under the cursor and how far off it may be, in one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import slicer

from .scene import FILLED, UNIT
from .texts import _
from .volumes import ijk_to_world, voxels


class CursorLine:
    """Follows the cursor in the slice views; ``tell(line)`` is called with '' where there is nothing to say."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._nodes: tuple[Any, Any] = (None, None)
        self._observed: tuple[Any, int] | None = None
        self._line = ""

    def follow(self, result: Any, half_widths: Any) -> None:
        """Tell of a result and its half-widths from now on."""
        self._nodes = (result, half_widths)
        cursor = result.GetScene().GetFirstNodeByClass("vtkMRMLCrosshairNode")
        if self._observed is not None and self._observed[0] is cursor:
            return
        self.stop()
        self._nodes = (result, half_widths)
        if cursor is not None:
            event = slicer.vtkMRMLCrosshairNode.CursorPositionModifiedEvent
            self._observed = (cursor, cursor.AddObserver(event, self._on_moved))

    def stop(self) -> None:
        if self._observed is not None:
            cursor, tag = self._observed
            cursor.RemoveObserver(tag)
        self._observed, self._nodes = None, (None, None)
        self._say("")

    def _on_moved(self, cursor: Any, _event: Any) -> None:
        position = np.zeros(3)
        known = cursor.GetCursorPositionRAS(position)
        self._say(text_at(*self._nodes, position) if known else "")

    def _say(self, line: str) -> None:
        if line != self._line:
            self._line = line
            self._tell(line)


def text_at(result: Any, half_widths: Any, ras_mm: np.ndarray) -> str:
    """Such as '-12 HU \N{PLUS-MINUS SIGN} 45 (prior-filled 40 %)'; '' outside of the result."""
    value, half = value_at(result, ras_mm), value_at(half_widths, ras_mm)
    if value is None or half is None:
        return ""
    digits = max(0, 2 - int(np.floor(np.log10(max(abs(half), 1e-12))))) if abs(half) < 10 else 0
    unit = result.GetAttribute(UNIT) if result.GetAttribute(UNIT) is not None else "HU"
    line = f"{f'{value:.{digits}f} {unit}'.rstrip()} \N{PLUS-MINUS SIGN} {half:.{digits}f}"
    filled = value_at(result.GetNodeReference(FILLED), ras_mm)
    return line if filled is None else line + " " + _("(prior-filled {share})").format(share=f"{100 * filled:.0f} %")


def value_at(node: Any, ras_mm: np.ndarray) -> float | None:
    """The voxel of a volume node that holds a point of the world; None outside, or where the node is gone."""
    if node is None or node.GetScene() is None or node.GetImageData() is None:
        return None
    ijk = np.linalg.solve(ijk_to_world(node), np.append(ras_mm, 1.0))[:3]
    index = tuple(int(n) for n in np.floor(ijk[::-1] + 0.5))
    array = voxels(node)
    if array.ndim != 3 or not all(0 <= n < size for n, size in zip(index, array.shape, strict=True)):
        return None
    return float(array[index])
