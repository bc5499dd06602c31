"""How sure a result is, over it in the slice views: half-widths in colours, from a threshold on.

Any volume of half-widths will do - the standard deviation of samples, half of an interval - on whatever grid.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import slicer

from DiffusionMBIRLib.errors import InputError

from .compare import ViewLayers, set_layers
from .difference import colours_of, gradient, show_legend
from .scene import UNCERTAINTY, UNIT, VOLUME_CLASS, ordinary_composites, set_window
from .texts import _
from .volumes import sample, voxels

COLOURS = "DiffusionMBIR.Uncertain"  # attribute of the colour node
OPACITY = 0.6  # of the colours over the anatomy
_PERCENTILE = 99.5  # where the colours end
_SHARE = 0.25  # of the colours' end that is the threshold at first
# Yellow, orange, red, violet: ever darker, so that they differ in grey as well; none of them is one of the anatomy's.
_STOPS = ((1.0, 0.95, 0.45), (1.0, 0.7, 0.2), (0.95, 0.3, 0.15), (0.7, 0.05, 0.35), (0.4, 0.0, 0.5))


class UncertaintyOverlay:
    """One at a time, in the ordinary slice views; what they and the volume's display showed before comes back."""

    def __init__(self, scene: Any) -> None:
        self._scene = scene
        self._layers = ViewLayers()
        self._node: Any = None
        self._former: tuple[Any, ...] = ()
        self.reach = 0.0  # where the colours end, in the unit of the volume
        self.unit = ""

    @property
    def active(self) -> bool:
        return bool(self._layers.kept)

    @property
    def composites(self) -> list[Any]:
        """Of the views that it is shown in."""
        return self._layers.kept

    def start(self, result: Any, half_widths: Any, composites: Iterable[Any] | None = None) -> None:
        """Show half-widths over a result.  Raises InputError where one is missing, both are the same, or all are 0."""
        require_half_widths(result, half_widths)
        self.stop()
        values = sample(voxels(half_widths))
        self.reach = float(np.percentile(np.abs(values), _PERCENTILE)) if values.size else 0.0
        if self.reach <= 0:
            raise InputError(_("The chosen uncertainty is 0 everywhere: choose another volume."))
        self.unit = half_widths.GetAttribute(UNIT) or result.GetAttribute(UNIT) or ""
        if half_widths.GetDisplayNode() is None:
            half_widths.CreateDefaultDisplayNodes()
        self._node, self._former = half_widths, _display_of(half_widths)
        display = half_widths.GetDisplayNode()
        was_modifying = display.StartModify()
        display.SetAndObserveColorNodeID(uncertain_colours(self._scene).GetID())
        set_window(display, self.reach, self.reach / 2)
        display.EndModify(was_modifying)
        self.set_threshold(_SHARE * self.reach)
        show_legend(half_widths, f"+/- {self.unit}".strip(), "%.0f" if self.reach >= 10 else "%.2g")
        self._layers.keep(ordinary_composites(self._scene) if composites is None else list(composites))
        for composite in self._layers.kept:
            set_layers(composite, result.GetID(), half_widths.GetID(), OPACITY)

    def set_threshold(self, least: float) -> None:
        """Show only what is at least so uncertain, in the unit of the volume."""
        display = self._node.GetDisplayNode() if self._node is not None else None
        if display is None:
            return
        was_modifying = display.StartModify()
        display.SetAutoThreshold(0)
        display.SetThreshold(float(least), max(float(least), float(np.finfo(np.float32).max)))
        display.SetApplyThreshold(1)
        display.EndModify(was_modifying)

    def stop(self) -> None:
        """Give views and display back; nothing happens where nothing is shown."""
        self._layers.give_back()
        node, self._node = self._node, None
        display = node.GetDisplayNode() if node is not None and node.GetScene() is self._scene else None
        if display is None:
            return
        colours, window, level, automatic, least, most, applied = self._former
        was_modifying = display.StartModify()
        if self._scene.GetNodeByID(colours or "") is not None:
            display.SetAndObserveColorNodeID(colours)
        set_window(display, window, level)
        display.SetAutoWindowLevel(automatic)
        display.SetThreshold(least, most)
        display.SetApplyThreshold(applied)
        display.EndModify(was_modifying)
        _hide_legend(node)


def half_widths_of(result: Any) -> Any:
    """The volume that a run left as the uncertainty of its result, None where there is none."""
    found = result.GetNodeReference(UNCERTAINTY) if result is not None else None
    return found if found is not None and found.GetImageData() is not None else None


def require_half_widths(result: Any, half_widths: Any) -> None:
    """Raise InputError unless one volume can be shown as the uncertainty of another."""
    for node in (result, half_widths):
        if node is None or node.GetImageData() is None:
            raise InputError(_("Choose a result, and a volume that tells how uncertain it is."))
    if not half_widths.IsA(VOLUME_CLASS) or half_widths is result:
        raise InputError(_("The uncertainty must be a scalar volume of its own: choose another one."))


def uncertain_colours(scene: Any) -> Any:
    """The scene's colour node of uncertainty; made at first use."""
    positions = np.linspace(0, len(_STOPS) - 1, 256)
    parts = [np.interp(positions, range(len(_STOPS)), [stop[part] for stop in _STOPS]) for part in range(3)]
    colours = [(float(red), float(green), float(blue)) for red, green, blue in zip(*parts, strict=True)]
    return colours_of(scene, COLOURS, _("Uncertainty (yellow - red - violet)"), colours)


def uncertain_bar() -> str:
    """The same colours as a style sheet's gradient, for a label."""
    return gradient(_STOPS)


def _display_of(node: Any) -> tuple[Any, ...]:
    display = node.GetDisplayNode()
    return (
        display.GetColorNodeID(),
        display.GetWindow(),
        display.GetLevel(),
        display.GetAutoWindowLevel(),
        display.GetLowerThreshold(),
        display.GetUpperThreshold(),
        display.GetApplyThreshold(),
    )


def _hide_legend(node: Any) -> None:
    if node.GetScene().IsNodeClassRegistered("vtkMRMLColorLegendDisplayNode"):
        legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(node)
        if legend is not None:
            legend.SetVisibility(False)
