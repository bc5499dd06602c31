"""The panel's keys: they act where the panel has the focus; X, which Slicer has no use for, while results are shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt


class Keys:
    """Live from ``enter`` to ``exit``: while the module is the one that is shown."""

    def __init__(self, root: Any, *, run: Callable[[], None], end: Callable[[], None], flicker: Callable[[], None]):
        self._root, self._run, self._end, self._flicker = root, run, end, flicker
        self._shortcuts: list[Any] = []
        self._flicker_key: Any = None
        self._results_shown = False

    def enter(self, window: Any) -> None:
        """window: the application's; the key X works in its slice views as well."""
        self.exit()
        for keys, act in (("Ctrl+Return", self._run), ("Ctrl+Enter", self._run), ("Esc", self._end)):
            self._add(keys, self._root, act).setContext(qt.Qt.WidgetWithChildrenShortcut)
        self._flicker_key = self._add("X", window, self._flicker)
        self._flicker_key.setEnabled(self._results_shown)

    def _add(self, keys: str, owner: Any, act: Callable[[], None]) -> Any:
        shortcut = qt.QShortcut(qt.QKeySequence(keys), owner)
        shortcut.activated.connect(act)
        self._shortcuts.append(shortcut)
        return shortcut

    def results_shown(self, shown: bool) -> None:
        """Whether there is something to flicker, in sight."""
        self._results_shown = shown
        if self._flicker_key is not None:
            self._flicker_key.setEnabled(shown)

    def exit(self) -> None:
        for shortcut in self._shortcuts:
            shortcut.setEnabled(False)
            shortcut.deleteLater()
        self._shortcuts, self._flicker_key = [], None
