"""The three ways in which a call may end early; the command line maps them to exit codes."""

from __future__ import annotations

LONGEST_LINE = 500


def one_line(reason: object, longest: int = LONGEST_LINE) -> str:
    """What went wrong as one line for people: blanks for line ends and control characters, the middle of a long one
    left out.  Its beginning names the file, its end says what to do.
    """
    text = " ".join("".join(c if c.isprintable() else " " for c in str(reason)).split())
    if len(text) <= longest:
        return text
    kept = longest - len(_LEFT_OUT)
    return text[: kept - kept // 2] + _LEFT_OUT + text[len(text) - kept // 2 :]


_LEFT_OUT = " ... "


class InputError(ValueError):
    """What the user brought cannot be used; the message names the file or field and what to do (exit code 2)."""


class EngineError(RuntimeError):
    """The computation could not be finished, e.g. no memory or a full disk (exit code 1)."""


class Cancelled(RuntimeError):
    """Raised by a monitor's ``tick`` to end a run early; samplers let it pass through."""
