"""What the panel does beside: a call in a thread, and what follows once it is over."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from DiffusionMBIRLib.errors import EngineError, InputError


class Background:
    """Something that takes long, in a thread: it touches no node and no widget.

    done: makes the line that is said once it worked, in the timer of the panel.  then: called before, if nobody has
    taken it away because the scene is another one.
    """

    def __init__(self, act: Callable[[], Any], then: Callable[[], None] | None = None) -> None:
        self._act, self.then = act, then
        self.done: Callable[[], str] = lambda: ""
        self.problem = ""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def over(self) -> bool:
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._act()
        except (InputError, EngineError, OSError) as error:
            self.problem = str(error)
        except Exception as error:  # a thread that dies without a word would leave the buttons locked
            self.problem = f"{type(error).__name__}: {error}"
