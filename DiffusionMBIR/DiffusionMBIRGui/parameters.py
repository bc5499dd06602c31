"""The settings in the scene: typed, checked, saved with it.  Built from the engine's tables of settings.

What belongs to the machine and not to the data - which Python to start, where jobs lie - is not among them: a scene
that came from somebody else must not decide what is run here.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import MISSING, Field, asdict, dataclass, fields, replace
from functools import lru_cache
from typing import Any

from DiffusionMBIRLib import config
from DiffusionMBIRLib.config import ReconSettings, preset_values, setting
from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.geometry import geometry_kind
from DiffusionMBIRLib.simulation.settings import SCANS, scan_names, whole_name
from DiffusionMBIRLib.tasks import SPARSE_VIEW, TASKS, task_info

from .own_presets import OWN, OwnPresets
from .told import ToldFile

MODULE = "DiffusionMBIR"
NODE_CLASS = "vtkMRMLScriptedModuleNode"
SOURCES = ("volume", "sinogram", "k-space")
ROLES = ("input", "reference", "output")
KEPT_BY_PRESETS = ("prior", "seed", "device", "precision", "slices_per_batch", "tile")


@dataclass(frozen=True)
class PanelSettings:
    """What the panel asks for besides the engine's settings of a simulated scan and of a reconstruction."""

    source: str = setting("volume", "Source", "Where the measurement comes from.", choices=SOURCES)
    input_file: str = setting("", "File", "File to read instead of a node of the scene.")
    task: str = setting(SPARSE_VIEW, "Task", "What was measured, and what is missing.", choices=TASKS)
    preset: str = setting(
        task_info(SPARSE_VIEW).preset, "Preset", "A tried set of settings; single ones can be changed afterwards."
    )
    output_name: str = setting(
        "", "Result", "Name of the new volume that the run fills; empty for one made of the input's name and the steps."
    )
    preview_on: bool = setting(True, "Live preview", "Show the volume in the slice views while it is computed.")
    preview_interval_s: float = setting(
        1.0, "Every", "Shortest time between two previews.", unit="s", range=(0.2, 600.0)
    )
    record_sequence: bool = setting(
        False, "Record previews", "Keep the previews as a sequence that can be replayed; takes memory."
    )


def _table() -> dict[str, Field[Any]]:
    table: dict[str, Field[Any]] = {}
    for owner in (PanelSettings, ToldFile, *SCANS.values(), ReconSettings):
        for item in fields(owner):
            if item.name in table:
                raise TypeError(f"setting {item.name} stands in two tables")
            table[item.name] = item
    return table


class Parameters:
    """Typed access to one ``vtkMRMLScriptedModuleNode``, which travels in the scene.

    A value that the node lacks, or holds but that is not valid, reads as its default: a damaged scene still opens.
    """

    TABLE: dict[str, Field[Any]] = _table()

    def __init__(self, node: Any) -> None:
        self.node = node

    @classmethod
    def of(cls, scene: Any) -> Parameters:
        """The parameters of a scene; the node is made if it is not there."""
        node = scene.GetSingletonNode(MODULE, NODE_CLASS)
        if node is None:
            node = scene.CreateNodeByClass(NODE_CLASS)
            node.UnRegister(None)  # the Python variable owns it now
            node.SetSingletonTag(MODULE)
            node.SetName(MODULE)
            node = scene.AddNode(node)
        node.SetAttribute("ModuleName", MODULE)  # closing a scene takes it away
        return cls(node)

    # One value.

    def get(self, name: str) -> Any:
        """The value of a setting; raises KeyError for a name that is not in the table."""
        item = self.TABLE[name]
        text = self.node.GetParameter(name)
        if text in (None, "") and not self.node.HasParameter(name):
            return default_of(item)
        try:
            value = _parse(text, str(item.type))
            _check(name, value)
        except (InputError, ValueError):
            return default_of(item)
        return value

    def set(self, name: str, value: Any) -> None:
        """Keep a value, without an event if it is kept already; raises InputError that names a setting out of range."""
        _check(name, value)
        text = _format(value, str(self.TABLE[name].type))
        if not (self.node.HasParameter(name) and self.node.GetParameter(name) == text):
            self.node.SetParameter(name, text)

    def update(self, values: dict[str, Any]) -> None:
        """Several values with one event at most."""
        for name, value in values.items():
            _check(name, value)
        was_modifying = self.node.StartModify()
        try:
            for name, value in values.items():
                self.set(name, value)
        finally:
            self.node.EndModify(was_modifying)

    def reset(self) -> None:
        """All settings as they are at first; the nodes chosen stay."""
        self.update({name: default_of(item) for name, item in self.TABLE.items()})

    # What several values mean together.

    def choose_task(self, task: str) -> None:
        """Change the task, and with it the preset and the scan that are usual for it."""
        _check("task", task)
        info = task_info(task)
        values: dict[str, Any] = {"task": task, **info.usual}
        if info.modality != self.modality:  # a prior of the other modality would not do
            values["prior"] = default_of(self.TABLE["prior"])
        self.update(values)
        names = presets_of(task)
        if names:
            self.apply_preset(names[0])

    def choose_scanner(self, scanner: str) -> None:
        """Change the kind of scanner; where the views covered every line of the former one, they go on to do so."""
        _check("scanner", scanner)
        former, new = (geometry_kind(whole_name(name)) for name in (self.get("scanner"), scanner))
        values: dict[str, Any] = {"scanner": scanner}
        if self.get("angle_range_deg") == former.EVERY_LINE_DEG:
            values["angle_range_deg"] = new.EVERY_LINE_DEG
        self.update(values)

    def apply_preset(self, name: str) -> None:
        """Take over a preset's settings; those of ``KEPT_BY_PRESETS`` stay unless the preset names them."""
        values, settings = self._preset(name)
        kept = [entry for entry in KEPT_BY_PRESETS if entry not in values]
        self.update({**{k: v for k, v in settings.items() if k not in kept}, "preset": name})

    def choose_method(self, method: str) -> None:
        """Change the method; settings that are as the preset has them for the old one become those for the new one."""
        _check("method", method)
        values: dict[str, Any] = {"method": method}
        with suppress(InputError):
            old, new = (self._preset(self.get("preset"), name)[1] for name in (self.get("method"), method))
            values |= {k: new[k] for k in new if k != "method" and new[k] != old[k] == self.get(k)}
        self.update(values)

    def follows_preset(self) -> bool:
        """False once a setting differs from the preset that was chosen last."""
        try:
            values, theirs = self._preset(self.get("preset"))
        except InputError:
            return False
        ours = asdict(self.settings())
        return all(ours[k] == theirs[k] for k in ours if k in values or k not in KEPT_BY_PRESETS)

    @property
    def own_presets(self) -> OwnPresets:
        """Those of the user's own."""
        return OwnPresets(self.node)

    def _preset(self, name: str, method: str | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """What a preset says, of a method or its own, and all settings that follow from it; raises InputError for one
        that is not known.
        """
        if not name.startswith(OWN):
            return _preset(name, method)
        own = self.own_presets.find(name)
        if own is None:
            raise InputError(f"preset {name.removeprefix(OWN)!r} is not known")
        return dict(own.values), asdict(ReconSettings(**own.values))

    def preset_settings(self, name: str) -> ReconSettings:
        """The settings as a preset would leave them; raises InputError for one that is not known."""
        values, theirs = self._preset(name)
        ours = asdict(self.settings())
        return ReconSettings(**{k: ours[k] if k in KEPT_BY_PRESETS and k not in values else theirs[k] for k in theirs})

    @property
    def modality(self) -> str:
        """'CT' or 'MR', by the task."""
        return task_info(self.get("task")).modality

    def settings(self) -> ReconSettings:
        """The engine's settings, all valid."""
        return replace(ReconSettings(), **{item.name: self.get(item.name) for item in fields(ReconSettings)})

    def request_scan(self) -> dict[str, Any]:
        """The settings of a simulated scan and its seed; empty where the data are measured."""
        if self.get("source") != "volume":
            return {}
        task = self.get("task")
        names = [name for name in scan_names(task) if not (task_info(task).of_slices and name == "distance_mm")]
        return {name: self.get(name) for name in names} | {"seed": self.get("seed")}

    # Nodes.

    def node_of(self, role: str) -> Any:
        """The node that plays a role ('input', 'reference', 'output'), or None."""
        return self.node.GetNodeReference(_role(role))

    def set_node(self, role: str, node: Any) -> None:
        """Let a node play a role; None takes it away."""
        identity = node.GetID() if node is not None else None
        if self.node.GetNodeReferenceID(_role(role)) != identity:
            self.node.SetNodeReferenceID(_role(role), identity)

    @property
    def input_node(self) -> Any:
        return self.node_of("input")

    @property
    def reference_node(self) -> Any:
        return self.node_of("reference")

    @property
    def output_node(self) -> Any:
        return self.node_of("output")

    @property
    def input_file(self) -> str:
        return str(self.get("input_file"))


@lru_cache
def _preset(name: str, method: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a preset's file says, and all settings that follow from it.  Files do not change while Slicer runs."""
    values = preset_values(name, method)
    return values, asdict(ReconSettings(**values))


@lru_cache
def presets_of(task: str) -> tuple[str, ...]:
    """The presets of a task that are at hand, the usual one first."""
    from DiffusionMBIRLib.models import resources

    folder = resources() / "Presets"
    return tuple(name for name in task_info(task).presets if (folder / f"{name}.toml").is_file())


def default_of(item: Field[Any]) -> Any:
    if item.default is MISSING:
        raise TypeError(f"setting {item.name} lacks a default")
    return item.default


def _role(role: str) -> str:
    if role not in ROLES:
        raise KeyError(role)
    return f"{MODULE}.{role}"


def _check(name: str, value: Any) -> None:
    """Raise InputError that names the setting and its limits; KeyError for a name that is not in the table."""
    item = Parameters.TABLE[name]
    if str(item.type) == "str" and not isinstance(value, str):
        raise InputError(f"setting {name}: {value!r} is not a text")
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"setting {name}: {value} is not a finite number")
    config.check(name, value, item.metadata, item.type)


def _format(value: Any, kind: str) -> str:
    if kind == "bool":
        return "true" if value else "false"
    if kind == "int":
        return str(int(value))
    return repr(float(value)) if kind == "float" else str(value)


def _parse(text: str, kind: str) -> Any:
    if kind == "bool":
        return {"true": True, "false": False}.get(text, text)
    if kind == "int":
        return int(text)
    return float(text) if kind == "float" else text
