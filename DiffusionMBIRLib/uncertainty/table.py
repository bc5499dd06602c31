"""What half-widths are made with: the model of error sizes, and the factors of each kind of scan."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..models import resources, user_models
from ..schema import Listed, Number, OneOf, Plain, Rule, Text, checked, json_object
from .conformal import CLASSES

if TYPE_CHECKING:
    from ..config import ReconSettings
    from ..scans import Scan
    from .scale import ErrorScale

FOLDER = "Calibrations"
NOISE_FREE = 1e9  # photons a ray that stand for none counted
_NEAR = 1.6  # times more or fewer views, degrees or times faster than calibrated: taken as they are
_FAR = 3.0  # refused beyond
_LESS_DOSE = 3.0  # times fewer photons than the least that were calibrated
_WIDER = 1.5  # half-widths in between
_LIKE = {"fan-beam": "parallel-beam"}  # whose views see the same slices; of cones and helices nothing is known


@dataclass(frozen=True)
class Kind:
    """What errors depend on: task and geometry as they are named, and how little was measured, and how well.

    amount: views; of limited angles the degrees; of MRI the share of k-space.  photons: a ray, NOISE_FREE where the
    scan does not tell; of MRI 0.  coils: one or many; of CT 1.
    """

    task: str
    geometry: str
    amount: float
    photons: float = NOISE_FREE
    coils: int = 1

    @property
    def text(self) -> str:
        if self.coils > 1 or self.task == "compressed-sensing-mri":
            return f"{self.geometry}, {self.amount:.0%} of k-space, {'many coils' if self.coils > 1 else 'one coil'}"
        dose = "noise-free" if self.photons >= NOISE_FREE else f"{self.photons:.0e} photons a ray"
        return f"{self.task}, {self.geometry}, {self.amount:g}, {dose}"


def kind_of(scan: Scan) -> Kind:
    """Of a scan to be reconstructed."""
    geometry: Any = scan.geometry
    if scan.modality == "MR":
        mask = geometry.mask
        return Kind(scan.task, geometry.KIND, whole_share(float(mask.mean())), 0.0, min(2, scan.data.shape[1]))
    amount = float(geometry.views_of_a_point)
    if scan.task == "limited-angle-ct":
        angles = sorted(geometry.angles_deg)
        amount = (angles[-1] - angles[0]) * len(angles) / max(1, len(angles) - 1)
    photons = getattr(scan, "photons", 0.0)
    return Kind(scan.task, geometry.KIND, amount, photons if photons > 0 else NOISE_FREE)


def whole_share(sampled: float) -> float:
    """The share of k-space of an acceleration in quarters: masks of a line more or less are of one kind."""
    return 4 / max(4, round(4 / sampled)) if sampled > 0 else 0.0


@dataclass(frozen=True)
class Entry:
    """One kind of scan.  factors: for each share (0.9, 0.95) those of each class.  people: how many it rests on.
    held: the mean share that was held of people who were left out, for each share.  usual: mean, spread and
    dependence of what a scan is like (see ``unlike``), and limit, the distance that one in a hundred scans of any kind
    passes.
    """

    kind: Kind
    factors: dict[str, list[float]]
    people: int
    held: dict[str, float] = field(default_factory=dict)
    usual: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """All kinds of scans that one prior was calibrated for with one method."""

    prior: str
    method: str
    modality: str
    steps: int
    entries: tuple[Entry, ...]

    def for_scan(self, scan: Scan, settings: ReconSettings) -> tuple[Entry, list[str]]:
        """The entry that suits a scan, made of the two between which it lies, and remarks.

        Raises InputError where there is none like it, which says what was calibrated.
        """
        return self.for_kind(kind_of(scan), settings)

    def for_kind(self, kind: Kind, settings: ReconSettings) -> tuple[Entry, list[str]]:
        """The same of a kind of scan."""
        remarks = list[str]()
        if settings.method != self.method:
            raise InputError(f"setting uncertainty: calibrated for {self.method}, not {settings.method}; {_OWN}")
        if settings.steps != self.steps:
            remarks.append(f"intervals were calibrated with {self.steps} noise levels, this run has {settings.steps}")
        wider = 1.0
        like = [e for e in self.entries if (e.kind.task, e.kind.geometry) == (kind.task, kind.geometry)]
        other = _LIKE.get(kind.geometry, "")
        if not like and other:
            like = [e for e in self.entries if (e.kind.task, e.kind.geometry) == (kind.task, other)]
            wider = _WIDER
            remarks.append(f"intervals are those of {other}, widened by half: {kind.geometry} was not calibrated")
        like = [e for e in like if (e.kind.coils > 1) == (kind.coils > 1)] or like
        if not like:
            known = sorted({f"{e.kind.task} by {e.kind.geometry}" for e in self.entries})
            raise InputError(
                f"setting uncertainty: {kind.task} by {kind.geometry} was not calibrated ({', '.join(known)}); {_OWN}"
            )
        if kind.photons and kind.photons < min(e.kind.photons for e in like) / _LESS_DOSE:
            wider *= _WIDER
            remarks.append(f"intervals are widened by half: a dose of {kind.photons:.0e} photons a ray was not tried")
        nearest = min(abs(math.log(e.kind.photons / kind.photons)) if kind.photons else 0.0 for e in like)
        like = [e for e in like if not kind.photons or abs(math.log(e.kind.photons / kind.photons)) <= nearest + 1e-9]
        lower = [e for e in like if e.kind.amount <= kind.amount * 1.001]
        upper = [e for e in like if e.kind.amount >= kind.amount * 0.999]
        ends = [max(lower, key=_amount)] if lower else []
        ends += [min(upper, key=_amount)] if upper else []
        distance = max(1.0, min(max(_amount(e) / kind.amount, kind.amount / _amount(e)) for e in ends))
        if len(ends) == 1 and distance > _FAR:
            amounts = ", ".join(f"{_amount(e):.4g}" for e in sorted(like, key=_amount))
            raise InputError(
                f"setting uncertainty: {kind.text} lies far outside what was calibrated ({amounts}); {_OWN}"
            )
        entry = widest(ends)
        if len(ends) == 1 and distance > _NEAR:
            remarks.append(f"intervals are widened by half: {kind.text} lies outside what was calibrated")
            wider *= _WIDER
        if wider > 1:
            entry = replace(entry, factors={k: [wider * f for f in v] for k, v in entry.factors.items()})
        return entry, remarks


_OWN = "run it without, or make a table with: diffusionmbir calibrate"


def _amount(entry: Entry) -> float:
    return entry.kind.amount


def widest(entries: Sequence[Entry]) -> Entry:
    """The first one with the largest factors of all."""
    first = entries[0]
    factors = {
        share: [max(values) for values in zip(*(e.factors[share] for e in entries), strict=True)]
        for share in first.factors
    }
    return replace(first, factors=factors)


# ---- files


_KIND: dict[str, Rule] = {
    "task": Text(64), "geometry": Text(64), "amount": Number(1e-6, 1e9), "photons": Number(0, 1e15),
    "coils": Number(1, 1024, whole=True),
}  # fmt: skip
_ENTRY: dict[str, Rule] = {
    "kind": Plain(), "factors": Plain(), "people": Number(0, 1e6, whole=True), "held": Plain(), "usual": Plain(),
}  # fmt: skip
_TABLE: dict[str, Rule] = {
    "prior": Text(100), "method": Text(64), "modality": OneOf(tuple(CLASSES)), "steps": Number(1, 5000, whole=True),
    "entries": Listed(Plain(), 1000),
}  # fmt: skip
_SHARES: dict[str, Rule] = dict.fromkeys(("0.9", "0.95"), Listed(Number(1e-3, 1e3), 16))


def write_table(table: Table, scale: ErrorScale, path: Path) -> Path:
    """Table and model as one safetensors file, replaced as a whole."""
    import os

    from safetensors.torch import save_file

    temporary = path.with_suffix(".tmp")
    save_file(
        {"coefficients": scale.coefficients.contiguous(), **(scale.refinement.tensors() if scale.refinement else {})},
        temporary,
        {"calibration": json.dumps(asdict(table), sort_keys=True)},
    )
    os.replace(temporary, path)
    return path


def read_table(path: Path) -> tuple[Table, ErrorScale]:
    """The inverse of :func:`write_table`; raises InputError that names the file for what does not fit."""
    from safetensors import SafetensorError, safe_open

    from .refine import Refinement, input_count
    from .scale import FEATURES, ErrorScale

    try:
        with safe_open(str(path), "pt") as file:
            text = (file.metadata() or {}).get("calibration", "")
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path}: is no calibration ({str(error)[:80]}); make one with: diffusionmbir calibrate"
        ) from None
    table = _table_of(text, str(path))
    classes = len(CLASSES[table.modality].names)
    found = tensors.get("coefficients")
    try:
        refinement = Refinement.of(tensors, input_count(FEATURES, classes))
    except ValueError:
        found = refinement = None
    if found is None or tuple(found.shape[-2:]) != (classes, FEATURES) or not bool(found.isfinite().all()):
        raise InputError(f"{path}: is of another version than this one; make a new calibration")
    return table, ErrorScale(found.reshape(-1, classes, FEATURES), refinement)


def _table_of(text: str, where: str) -> Table:
    entries = checked(json_object(text, where), _TABLE, where, needed=("prior", "method", "modality", "entries"))
    listed = []
    for number, told in enumerate(entries.pop("entries")):
        place = f"{where}: entry {number}"
        entry = checked(told, _ENTRY, place, needed=("kind", "factors"))
        kind = Kind(**checked(entry["kind"], _KIND, f"{place}: kind", needed=("task", "geometry", "amount")))
        factors = checked(entry["factors"], _SHARES, f"{place}: factors", needed=tuple(_SHARES))
        held = checked(entry.get("held", {}), {"0.9": Number(0, 1), "0.95": Number(0, 1)}, f"{place}: held")
        usual = checked(
            entry.get("usual", {}),
            {
                "mean": Listed(Number(-1e3, 1e3), 32),
                "spread": Listed(Number(1e-6, 1e3), 32),
                "given": Listed(Listed(Number(-1e3, 1e3), 32), 32),
                "limit": Number(0, 1e6),
            },
            f"{place}: usual",
        )
        listed.append(Entry(kind, factors, entry.get("people", 0), held, usual))
    return Table(**{**entries, "entries": tuple(listed)})


def find_table(prior: str) -> Path | None:
    """The calibration of a prior: the user's own before the bundled one; None where there is none."""
    for folder in (user_models(), resources() / FOLDER):
        path = folder / f"{prior}.calibration.safetensors"
        if path.is_file():
            return path
    return None
