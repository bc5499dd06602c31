"""What a method is given besides the problem, and what it gives back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from ..denoisers import Counter
    from ..monitor import Checkpoint, Monitor


@dataclass(frozen=True)
class Run:
    """One run: who watches it, who keeps its state, the network that the method loaded, and what that was asked."""

    monitor: Monitor
    checkpoint: Checkpoint
    counter: Counter
    network: Any = None


@dataclass(frozen=True)
class Estimate:
    """A volume in the problem's value scale and, of several posterior samples, their standard deviation.

    remarks: lines on how it was made that the result's record is to hold.
    """

    volume: Tensor
    deviation: Tensor | None = None
    remarks: tuple[str, ...] = ()
