"""The button of a result's page: written by the engine beside, then opened in the user's browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from DiffusionMBIRLib.names import as_file_name

from .panel_desktop import Desktop, with_ending
from .panel_work import Background
from .texts import _


class PageButton:
    """``result()`` gives the node, ``begin(work, line)`` follows a thread, ``attempt`` tells of failures."""

    def __init__(
        self,
        button: Any,
        desktop: Desktop,
        runner: Any,
        result: Callable[[], Any],
        begin: Callable[[Background, str], None],
        attempt: Callable[[Callable[[], None]], None],
    ) -> None:
        self._button, self._desktop, self._runner = button, desktop, runner
        self._result, self._begin, self._attempt = result, begin, attempt
        button.clicked.connect(lambda *_state: attempt(self._make))

    def show(self, able: bool) -> None:
        """able: whether nothing else is under way."""
        self._button.setEnabled(able and self._result() is not None and bool(self._runner.python))

    def _make(self) -> None:
        from .pages import page_of

        node, runner = self._result(), self._runner
        if node is None:
            return
        name = as_file_name(node.GetName() or "")
        path = self._desktop.save_file(_("Save the page"), f"{name}.html", _("Page of HTML") + " (*.html)")
        path = with_ending(self._desktop, path, ".html")
        if not path:
            return
        target = Path(path).absolute()
        work = Background(page_of(node, runner.root, runner.python, runner.environment, target))
        work.done = lambda: opened(self._desktop, target)
        self._begin(work, _("Writing the page ..."))


def opened(desktop: Desktop, page: Path) -> str:
    """Open a page; the line that says so."""
    if desktop.open_page(str(page)):
        return _("The page is open in the browser: {file}").format(file=page)
    return _("The page is written; open it in a browser: {file}").format(file=page)
