"""How far off a result may be and where: half-widths, what the prior filled in, and whether the scan is unusual."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from .conformal import CLASSES
from .cost import STAGE
from .scale import SHARES, ErrorScale
from .signals import signals_of
from .split import filled_share
from .table import Entry, find_table, read_table
from .unlike import BODY, distance, features_of

if TYPE_CHECKING:
    from ..config import ReconSettings
    from ..denoisers import Denoiser
    from ..models import ModelCard
    from ..monitor import Monitor
    from ..problems import Problem


@dataclass(frozen=True)
class Doubt:
    """intervals: for each share, "90" and "95", half-widths (slices, rows, columns) in the value scale such that so
    many percent of the voxels are expected within.  part: what the prior filled in, signed, likewise.  against_tv: the
    volume less that of total variation from the same data.  filled: 0 to 1, how much of the detail around a voxel the
    prior filled in; filled_in_all: of the whole object's detail.  unlike: distance from the calibrated people, in their
    spreads, and limit, which one in a hundred of them passes.  remarks: what a user is to be told.
    """

    intervals: dict[str, Tensor]
    part: Tensor
    against_tv: Tensor
    filled: Tensor
    filled_in_all: float
    unlike: float
    limit: float
    remarks: list[str] = field(default_factory=list)

    def numbers(self) -> dict[str, Any]:
        """For the result's record."""
        return {
            "filled_in": round(self.filled_in_all, 4), "unlike": round(self.unlike, 3), "limit": round(self.limit, 3),
        }  # fmt: skip


def require_calibrated(problem_scan: Any, settings: ReconSettings, card: ModelCard | None) -> None:
    """Raise InputError before a run whose intervals nobody could make."""
    if card is None:
        raise InputError(f"setting uncertainty: method {settings.method} has no prior that was calibrated; use dual")
    path = find_table(card.id)
    if path is None:
        raise InputError(
            f"setting uncertainty: prior {card.id!r} has no calibration; make one with: diffusionmbir calibrate"
        )
    read_table(path)[0].for_scan(problem_scan, settings)


def doubt_about(
    problem: Problem, settings: ReconSettings, denoiser: Denoiser, card: ModelCard, x: Tensor, monitor: Monitor
) -> Doubt:
    """All of it for a finished volume x of a problem."""
    path = find_table(card.id)
    if path is None:
        raise InputError(f"setting uncertainty: prior {card.id!r} has no calibration")
    table, scale = read_table(path)
    entry, remarks = table.for_scan(problem.scan, settings)
    monitor.tick(STAGE, 0, 2)
    signals = signals_of(problem, denoiser, x, seed=settings.seed, tv_lam=settings.tv_lam, monitor=monitor)
    monitor.tick(STAGE, 1, 2)
    values = signals.maps[:, 0].cpu().numpy()
    classes = CLASSES[table.modality]
    kinds = classes.of(values * problem.value.scale + problem.value.offset if table.modality == "CT" else values)
    intervals = half_widths(signals.maps, torch.from_numpy(kinds), scale, entry)
    filled = x - signals.measured
    unlike = distance(features_of(signals.maps, signals.misfit), entry.usual) if entry.usual else 0.0
    limit = float(entry.usual.get("limit", 0.0))
    if entry.usual and unlike > limit:
        remarks.append(
            f"this scan is unlike those of the calibration ({unlike:.1f} spreads apart, usual is up to {limit:.1f}): "
            "intervals may not hold; check units, angles and that the object is of the prior's kind"
        )
    in_all = _share(signals.measured, filled, values)
    monitor.tick(STAGE, 2, 2)
    part, against = signals.maps[:, 1], signals.maps[:, -1]
    return Doubt(intervals, part, against, filled_share(signals.measured, filled), in_all, unlike, limit, remarks)


def half_widths(maps: Tensor, kinds: Tensor, scale: ErrorScale, entry: Entry) -> dict[str, Tensor]:
    """For each share, "90" and "95", those of a run's signals, in the value scale; kinds: class of each voxel."""
    index = kinds.to(maps.device)
    sizes = scale(maps, index, entry.kind.coils, entry.kind.amount)
    return {
        f"{100 * share:g}": sizes * torch.tensor(entry.factors[f"{share:g}"], device=sizes.device)[index]
        for share in SHARES
    }


def _share(measured: Tensor, filled: Tensor, values: np.ndarray) -> float:
    """Energy of the filled part over that of all detail in the object."""
    inside = torch.from_numpy(values > BODY).to(filled.device)
    if not bool(inside.any()):
        return 0.0
    mine, other = filled[inside], measured[inside]
    energy = (mine - mine.mean()).abs().square().sum()
    return float(energy / (energy + (other - other.mean()).abs().square().sum()).clamp_min(1e-12))
