"""What a worker tells: one JSON object a line, as frozen dataclasses.  Needs the standard library only."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any

LOG_LEVELS = ("info", "warning", "error")
FAILURES = ("input", "engine", "crash", "disk")


@dataclass(frozen=True)
class Started:
    """The worker is alive; nothing heavy has been imported yet."""

    job: str
    version: str
    pid: int
    resumed: bool


@dataclass(frozen=True)
class Prepared:
    """The measurement is at hand.  grid: that of previews and result (``Grid.to_dict``), in the user's axis order.

    memory_total, memory_free: bytes of the device, 0 where they are not known.  views: 0 where there are none.
    has_truth: the result will be judged against the volume that the scan was simulated from.
    """

    shape: list[int]
    grid: dict[str, Any]
    unit: str
    device: str
    memory_total: int
    memory_free: int
    views: int
    has_truth: bool


@dataclass(frozen=True)
class Progress:
    """``done`` of ``total`` steps of a stage.  fraction: of the whole job; seconds_left is None while unknown."""

    stage: str
    done: int
    total: int
    fraction: float
    seconds: float
    seconds_left: float | None
    metrics: dict[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Preview:
    """A newer preview can be read.  sequence: grows with each."""

    step: int
    sequence: int


@dataclass(frozen=True)
class Paused:
    """The worker waits."""


@dataclass(frozen=True)
class Continued:
    """The worker goes on after a pause."""


@dataclass(frozen=True)
class Log:
    """One line for the user.  level: info, warning or error."""

    level: str
    text: str


@dataclass(frozen=True)
class Finished:
    """The last word of a job that has a result, or that was cancelled (partial).

    metrics: PSNR and SSIM by plane where there is a truth.  result: the file's name in the job's folder, '' where a
    cancelled job had no estimate yet.  residual and nfe of a partial result are None and 0.
    """

    seconds: float
    residual: float | None
    nfe: int
    network_seconds: float
    metrics: dict[str, Any] | None
    result: str
    partial: bool


@dataclass(frozen=True)
class Failed:
    """The last word of a job without a result.  kind: input, engine, crash or disk."""

    reason: str
    kind: str
    resumable: bool


Event = Started | Prepared | Progress | Preview | Paused | Continued | Log | Finished | Failed
_KINDS: dict[str, type] = {
    kind.__name__.lower(): kind
    for kind in (Started, Prepared, Progress, Preview, Paused, Continued, Log, Finished, Failed)
}
_LONGEST_EXCERPT = 200


def encode(event: Event) -> str:
    """An event as one line of JSON, without the line's end; numbers that are not finite become null."""
    entries = {"event": type(event).__name__.lower(), **asdict(event)}
    return json.dumps(_finite(entries), separators=(",", ":"), allow_nan=False)


def decode(line: str | bytes) -> Event:
    """The event of a line; a line that is none becomes a Log of level warning."""
    text = line.decode("utf-8", "replace") if isinstance(line, bytes) else line
    try:
        entries = json.loads(text)
        kind = _KINDS[entries.pop("event")]
        return kind(**{f.name: entries[f.name] for f in fields(kind)})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Log("warning", f"not understood: {text.strip()[:_LONGEST_EXCERPT]}")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
