"""The three ways in which a call may end early; the command line maps them to exit codes."""

from __future__ import annotations


class InputError(ValueError):
    """What the user brought cannot be used; the message names the file or field and what to do (exit code 2)."""


class EngineError(RuntimeError):
    """The computation could not be finished, e.g. no memory or a full disk (exit code 1)."""


class Cancelled(RuntimeError):
    """Raised by a monitor's ``tick`` to end a run early; samplers let it pass through."""
