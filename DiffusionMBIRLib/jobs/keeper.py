"""Keeps the state of a run on disk, so that a killed one goes on to the same volume."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, TypeVar, cast

import torch
from torch import Tensor

from ..digests import Hashed, is_whole
from ..errors import Cancelled, EngineError, InputError
from .control import ClientGone
from .files import rewriting

Result = TypeVar("Result")
SHARE = 0.02  # of a run's time that may go into saving
_USUAL_BYTES_PER_S = 1.5e8
_USUAL_LATENCY_S = 0.02
_FORMAT = 3


class Keeper:
    """A Checkpoint in a folder: one file for the present stage, written to a temporary name and renamed.

    The SHA-256 of what torch wrote stands at the file's end, since torch itself does not notice a flipped bit; a file
    of its own could be of another state after a power cut.

    fingerprint: of the request, the prior and the version; a state with another one is not taken up.
    """

    def __init__(
        self,
        folder: Path,
        fingerprint: str,
        *,
        warn: Callable[[str], None],
        expected_s: Callable[[], float] = lambda: 0.0,
        client_gone: Callable[[], bool] = lambda: False,
        share: float = SHARE,
    ) -> None:
        """expected_s: what the whole run is thought to take; client_gone: the run is to end as soon as it is saved."""
        self._folder, self._fingerprint = folder, fingerprint
        self._warn, self._expected_s, self._client_gone, self._share = warn, expected_s, client_gone, share
        self.seconds_before = 0.0  # that the run took before it was taken up
        self._began = time.monotonic()
        self._cost_s: float | None = None  # of the last save
        self._spent_s = 0.0
        self._broken = False
        self._loaded: dict[str, dict[str, Tensor]] = {}
        self._saved: set[str] = set()
        self._taken_up: dict[str, tuple[int, int]] = {}
        for leftover in folder.glob(".*.tmp"):  # of a worker that was killed while it wrote
            with suppress(OSError):
                leftover.unlink()

    def load(self, stage: str) -> dict[str, Tensor] | None:
        """The state of a stage that an earlier run left; a damaged or foreign one is left aside with a warning.

        None once this run has saved the stage: its next sample begins anew.
        """
        if stage in self._saved:
            return None
        if stage not in self._loaded:
            state = self._read(stage)
            if state is None:
                return None
            self._loaded[stage] = state
            self._taken_up[stage] = int(state.get("number", 0)), int(state.get("done", 0))
        return self._loaded[stage]

    def seconds(self) -> float:
        """What the run took until now."""
        return self.seconds_before + time.monotonic() - self._began

    def steps_done(self, stage: str) -> tuple[int, int]:
        """(samples, steps of the next one) that a stage which was taken up had behind it."""
        return self._taken_up.get(stage, (0, 0))

    def _read(self, stage: str) -> dict[str, Tensor] | None:
        path = self._path(stage)
        if not path.is_file():
            return None
        try:
            if not is_whole(path):
                self._warn("the saved state is damaged (its SHA-256 differs); starting from the beginning")
                return None
            content: dict[str, Any] = torch.load(path, weights_only=True)
            if content["format"] == _FORMAT and content["fingerprint"] == self._fingerprint:
                state = _sound(content["state"])
                self.seconds_before = float(content["seconds"])
                return state
            self._warn("the saved state belongs to another version or prior; starting from the beginning")
        except _Odd as error:
            self._warn(f"the saved state is not one of a run ({error}); starting from the beginning")
        except Exception as error:  # a damaged file may raise nearly anything
            self._warn(f"the saved state cannot be read ({type(error).__name__}); starting from the beginning")
        return None

    def going_on(self, run: Callable[[], Result]) -> Result:
        """What ``run`` gives from the saved state, if there is one; from the beginning where nothing can be made of it.

        run: may be called twice.
        """
        try:
            return run()
        except (LookupError, TypeError, ValueError, RuntimeError) as error:
            known = isinstance(error, InputError | EngineError | Cancelled)
            if known or not self._loaded or self._saved:  # no state, or one that a step was made from
                raise
            self._warn(f"the saved state does not fit the job ({type(error).__name__}); starting from the beginning")
            self._forget()
        return run()

    def _forget(self) -> None:
        """Delete what an earlier run left: nothing can be made of it."""
        self._loaded.clear()
        self._taken_up.clear()
        self.seconds_before = 0.0
        self._forget_all_but("")

    def save(self, stage: str, state: dict[str, Tensor]) -> None:
        """Write the state if its time is worth it; a full disk is a warning, since the run itself can go on.

        Raises ClientGone after the state was written for a client that is gone.
        """
        now = time.monotonic()
        self._loaded.pop(stage, None)  # its memory is needed
        self._saved.add(stage)
        gone = self._client_gone()
        if gone or self._worth_it(state, now):
            self._write(stage, state, now)
        if gone:
            raise ClientGone

    def _write(self, stage: str, state: dict[str, Tensor], now: float) -> None:
        content = {"format": _FORMAT, "fingerprint": self._fingerprint, "seconds": self.seconds(), "state": state}
        try:
            with rewriting(self._path(stage)) as stream:
                hashed = Hashed(stream)
                torch.save(content, cast("IO[bytes]", hashed))
                stream.write(hashed.digest())
        except (OSError, RuntimeError) as error:  # torch wraps errors of the stream
            if not self._broken:
                self._warn(f"the state cannot be saved, so that this job could not be resumed: {_reason(error)}")
            self._broken = True
        else:
            self._broken = False
            self._forget_all_but(stage)
        self._cost_s = time.monotonic() - now
        self._spent_s += self._cost_s

    def _worth_it(self, state: dict[str, Tensor], now: float) -> bool:
        if self._cost_s is None:
            cost = _USUAL_LATENCY_S + sum(t.nbytes for t in state.values()) / _USUAL_BYTES_PER_S
            # The first one early, so that a kill after a few steps finds a state.
            return cost <= self._share * max(now - self._began, self._expected_s())
        return self._spent_s + self._cost_s <= self._share * (now - self._began)

    def _forget_all_but(self, stage: str) -> None:
        for path in self._folder.glob("*.pt"):
            if path != self._path(stage):
                with suppress(OSError):
                    path.unlink()

    def _path(self, stage: str) -> Path:
        return self._folder / f"{stage.lower()}.pt"


class _Odd(ValueError):
    """What is odd about a state."""


def _sound(state: Any) -> dict[str, Tensor]:
    """The state, if a run can have left it: tensors by name, counts and finite values."""
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise _Odd("it holds other things than tensors")
    for name in ("done", "number"):
        value = state.get(name, torch.tensor(0))
        if value.shape or value.dtype != torch.int64 or value < 0:
            raise _Odd(f"{name} is no count")
    if "done" not in state:
        raise _Odd("done is missing")
    for name, value in state.items():
        if not torch.isfinite(value).all():
            raise _Odd(f"{name} has values that are not finite")
    return state


def _reason(error: BaseException) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror.lower()
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__
