"""One row of Results: how uncertain the result is, in colours over it and outlined, from a threshold on; and the line
of what lies under the cursor.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .panel_fields import Form
from .texts import _


class UncertaintyView:
    """``result()`` gives the volume, ``begin()`` is called before it is shown, ``attempt(act)`` says what failed."""

    def __init__(
        self,
        form: Form,
        result: Callable[[], Any],
        begin: Callable[[], None],
        attempt: Callable[[Callable[[], None]], None],
        changed: Callable[[], None],
    ) -> None:
        self._form, self._result, self._begin = form, result, begin
        self._attempt, self._changed = attempt, changed
        self._overlay: Any = None
        self._outlines: Any = None
        self._probe: Any = None
        self._of: Any = None  # the result that the box follows
        form.uncertaintyButton.clicked.connect(self._on_pressed)
        form.uncertaintyNode.currentNodeIDChanged.connect(self._on_node)
        form.uncertaintyLeast.valueChanged.connect(self._on_least)
        form.uncertaintyOutlines.toggled.connect(self._on_outlines)

    def set_scene(self, scene: Any) -> None:
        from .outlines import DoubtOutlines
        from .probe import CursorLine
        from .uncertainty import UncertaintyOverlay

        self.close()
        self._overlay, self._outlines, self._of = UncertaintyOverlay(scene), DoubtOutlines(scene), None
        self._probe = CursorLine(self._form.probeLine.setText)
        box = self._form.uncertaintyNode
        before = box.blockSignals(True)
        box.setMRMLScene(scene)
        box.blockSignals(before)

    @property
    def active(self) -> bool:
        return self._overlay is not None and bool(self._overlay.active)

    def close(self) -> None:
        """Touch no node any more."""
        if self._probe is not None:
            self._probe.stop()
        self._overlay = self._outlines = self._probe = self._of = None

    def stop(self) -> None:
        if self._overlay is not None:
            self._outlines.stop()
            self._overlay.stop()

    def _on_pressed(self, *_state: Any) -> None:
        if self.active:
            self.stop()
        elif self._overlay is not None:
            self._attempt(self._start)
        self._changed()

    def _start(self) -> None:
        self._begin()
        overlay, form = self._overlay, self._form
        overlay.start(self._result(), form.uncertaintyNode.currentNode())
        box = form.uncertaintyLeast
        before = box.blockSignals(True)
        box.setDecimals(max(0, min(10, 2 - math.floor(math.log10(overlay.reach)))))  # three digits of the colours' end
        box.setMaximum(overlay.reach)
        box.setSingleStep(overlay.reach / 50)
        box.setSuffix(f" {overlay.unit}".rstrip())
        box.setValue(overlay.reach / 4)
        box.blockSignals(before)
        overlay.set_threshold(float(box.property("value")))
        self._show_outlines()

    def _show_outlines(self) -> None:
        overlay, form = self._overlay, self._form
        self._outlines.stop()
        if self.active and form.uncertaintyOutlines.property("checked"):
            least = float(form.uncertaintyLeast.property("value"))
            self._outlines.start(self._result(), form.uncertaintyNode.currentNode(), least, overlay.composites)

    def _on_outlines(self, *_state: Any) -> None:
        if self._overlay is not None:
            self._attempt(self._show_outlines)

    def _on_least(self, *_state: Any) -> None:
        if self.active:
            least = float(self._form.uncertaintyLeast.property("value"))
            self._overlay.set_threshold(least)
            self._outlines.set_threshold(least)

    def _on_node(self, *_state: Any) -> None:
        self.stop()  # it was that of another volume
        self._changed()

    def show(self, result: Any, usable: bool) -> None:
        """Bring button and box up to date.  usable: whether the views are free for it."""
        from .uncertainty import half_widths_of

        form, box = self._form, self._form.uncertaintyNode
        if result is not self._of:
            self._of = result
            before = box.blockSignals(True)
            box.setCurrentNode(half_widths_of(result))
            box.blockSignals(before)
        elif box.currentNode() is None and half_widths_of(result) is not None:
            before = box.blockSignals(True)
            box.setCurrentNode(half_widths_of(result))
            box.blockSignals(before)
        chosen = box.currentNode()
        form.uncertaintyButton.setChecked(self.active)
        able = usable and result is not None and chosen is not None and chosen is not result
        form.uncertaintyButton.setEnabled(self.active or able)
        tip = _("Colours over the result where it is uncertain, from a threshold on; press again to go back")
        if not able:
            tip = _("Choose a volume of half-widths; Uncertainty or several samples under Advanced make one")
        form.uncertaintyButton.setToolTip(tip)
        form.uncertaintyLeast.setVisible(self.active)
        form.uncertaintyLeastLabel.setVisible(self.active)
        form.uncertaintyOutlines.setVisible(self.active)
        if self._probe is not None and able:
            self._probe.follow(result, chosen)
        elif self._probe is not None:
            self._probe.stop()
        form.probeLine.setVisible(able)
        if self.active:
            self._show_scale()

    def _show_scale(self) -> None:
        from .uncertainty import uncertain_bar

        form, overlay = self._form, self._overlay
        form.differenceLow.setText("0")
        form.differenceHigh.setText(f"{float(f'{overlay.reach:.3g}'):g} {overlay.unit}".strip())
        form.differenceBar.setText("")
        form.differenceBar.setToolTip(_("Half-width: the result is thought to lie within so much of the truth"))
        form.differenceBar.setStyleSheet(uncertain_bar())
