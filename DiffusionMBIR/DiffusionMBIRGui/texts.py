"""What the panel says where several places share it, and how numbers read.  Needs neither Qt nor a scene."""

from __future__ import annotations

from dataclasses import dataclass

from DiffusionMBIRLib.config import ReconSettings
from DiffusionMBIRLib.geometry import GEOMETRIES, geometry_kind
from DiffusionMBIRLib.methods import METHODS, method
from DiffusionMBIRLib.tasks import TASKS, task_info

try:
    from slicer.i18n import tr as _
    from slicer.i18n import translate
except ImportError:  # outside the application there is nothing to translate with

    def _(text: str) -> str:
        return text

    def translate(context: str, text: str) -> str:
        return text


__all__ = ["_", "translate"]

SETTINGS_CONTEXT = "DiffusionMBIRLib.config"  # where translators find the labels and help of the engine's tables


def setting_text(text: str) -> str:
    """A label, help or unit of the table of settings in the user's language."""
    return translate(SETTINGS_CONTEXT, text) if text else ""


def research_only() -> str:
    return _("Research use only, not for diagnosis.")


# What is missing: a few words for the Run button, and the line below it that says what to do.


@dataclass(frozen=True)
class Missing:
    """Why Run cannot be pressed."""

    button: str
    line: str


def no_input(source: str) -> str:
    return {
        "volume": _("Choose a volume, or press a sample to see how it works."),
        "sinogram": _("Choose a sinogram node or a measurement file, or press the sample Sinogram."),
        "k-space": _("Choose a k-space file, a volume with real and imaginary components, or the sample k-space."),
    }[source]


def input_missing(source: str) -> Missing:
    button = {
        "volume": _("Run: choose a volume first"),
        "sinogram": _("Run: choose a sinogram first"),
        "k-space": _("Run: choose k-space first"),
    }[source]
    return Missing(button, no_input(source))


def input_unusable(problem: str) -> Missing:
    return Missing(_("Run: this input cannot be used"), problem)


def other_source(kind: str) -> str:
    return {
        "volume": _("This file holds a volume: change the source, or choose another file."),
        "measurement": _("This file holds measured projections: change the source, or choose another file."),
        "k-space": _("This file holds k-space: change the source, or choose another file."),
    }.get(kind, _("This file holds nothing that can be reconstructed from: choose another file."))


def engine_missing(problem: str) -> Missing:
    return Missing(_("Run: set up the engine first"), problem)


def engine_lacks(packages: str) -> str:
    return _("The engine lacks {packages}: press Install under Set-up.").format(packages=packages)


def engine_unchecked() -> str:
    return _("Looking at the engine ...")


def engine_awaited() -> Missing:
    return Missing(_("Run: the engine is being looked at"), engine_unchecked())


def batch_awaited() -> Missing:
    return Missing(_("Run: the batch is running"), _("The batch is running: stop it under Batch, or wait for its end."))


def run_awaited() -> Missing:
    return Missing("", _("A job is running: wait for it, or cancel it."))


def prior_missing(name: str) -> Missing:
    line = _("Prior {name} is not installed: choose another one under Advanced, or import it under Set-up.")
    return Missing(_("Run: choose a prior first"), line.format(name=name or "?"))


def not_magnitudes(low: float) -> str:
    line = _("This volume holds values down to {value}: MRI is simulated from magnitudes, which are 0 or more.")
    return line.format(value=f"{low:g}")


def grid_missing(rows: int, columns: int, factor: int) -> Missing:
    line = _("Coarser grid: {columns} x {rows} cannot be divided by {factor}; choose another factor under Advanced.")
    text = line.format(columns=columns, rows=rows, factor=factor)
    return Missing(_("Run: choose another coarser grid first"), text)


def device_missing(name: str) -> Missing:
    line = _("Device {name} is not there: choose another one.")
    return Missing(_("Run: choose a device first"), line.format(name=name))


def too_little_memory(free: float) -> str:
    line = _("Only {free} are free: choose another device, or a coarser grid under Advanced.")
    return line.format(free=size(free))


# Names of things that settings hold as words.

_WORDS = {
    "volume": lambda: _("Volume: simulate a scan of it"),
    "sinogram": lambda: _("Sinogram: measured projections"),
    "k-space": lambda: _("k-space: measured MRI data"),
    "noise": lambda: _("Noise"),
    "ramp": lambda: _("Ramp"),
    "hann": lambda: _("Hann"),
    "uniform1d": lambda: _("Lines, drawn evenly"),
    "gaussian1d": lambda: _("Lines, drawn around the middle"),
    "equispaced": lambda: _("Lines at equal distances"),
    "poisson2d": lambda: _("Points (Poisson disc)"),
    "cartesian": lambda: _("Cartesian lines"),
    "radial": lambda: _("Radial (golden angle)"),
    "spiral": lambda: _("Spiral"),
    "phase": lambda: _("Phase taken out"),
    "real-imaginary": lambda: _("Real and imaginary part alike"),
    "two-channel": lambda: _("Two channels"),
    "auto": lambda: _("Automatic"),
    "cpu": lambda: _("CPU"),
    "simulate": lambda: _("Simulating the scan"),
    "ADMM-TV": lambda: _("Total variation"),
    "SIRT": lambda: _("SIRT"),
    "diffusion": lambda: _("Diffusion"),
    "doubt": lambda: _("How sure it is"),
}


def word(value: str) -> str:
    """How a choice, task, method, geometry or stage is shown; one that has no name of its own is shown as it is."""
    if value in TASKS:
        return setting_text(task_info(value).label)
    if value in METHODS:
        return setting_text(method(value).label)
    if value in GEOMETRIES:
        return setting_text(geometry_kind(value).LABEL)
    return _WORDS[value]() if value in _WORDS else value


_EFFORTS = {
    "": lambda: _("Standard"),
    "quick": lambda: _("Quick"),
    "balanced": lambda: _("Balanced"),
    "best": lambda: _("Best"),
    "published": lambda: _("As published"),
}


def preset_title(name: str, task: str) -> str:
    """What a preset of a task is called: by what tells it from the others of the task."""
    rest = name.replace(task_info(task).preset, "", 1).strip("-")
    return _EFFORTS[rest]() if rest in _EFFORTS else rest.replace("-", " ").capitalize()


def measure_name(key: str) -> str:
    """How a number that a run reports at each step is called in table and plot."""
    return {"sigma": _("noise level"), "residual": _("residual")}.get(key, key)


def how(settings: ReconSettings) -> str:
    """What tells one run from another in a volume's name: '20 steps', or the method where it is not the usual one."""
    label = word(settings.method).partition(" (")[0]
    steps = _("{count} steps").format(count=settings.steps) if "steps" in method(settings.method).settings else ""
    usual = settings.method == ReconSettings().method
    return steps if usual else ", ".join(filter(None, (label, steps)))


def kind_of_method(name: str) -> str:
    """A method in a word or two, for a narrow column."""
    return word(name).partition(" (")[0].partition(",")[0]


# Numbers.


def size(number_of_bytes: float) -> str:
    """Bytes for people: '8.0 GB', '9.2 MB'."""
    if number_of_bytes >= 0.95e9:
        return f"{number_of_bytes / 1e9:.1f} GB"
    if number_of_bytes >= 0.95e6:
        return f"{number_of_bytes / 1e6:.1f} MB"
    return f"{number_of_bytes / 1e3:.0f} kB"


def of_size(part: float, whole: float) -> str:
    """'2.1 of 8.0 GB'."""
    return f"{part / 1e9:.1f} of {whole / 1e9:.1f} GB"


def duration(seconds: float) -> str:
    """Seconds for people: '12 s', '3 min', '1.5 h'."""
    if seconds < 100:
        return _("{count} s").format(count=f"{max(seconds, 1):.0f}")
    if seconds < 5400:
        return _("{count} min").format(count=f"{seconds / 60:.0f}")
    return _("{count} h").format(count=f"{seconds / 3600:.1f}")


def shape(slices_rows_columns: tuple[int, int, int]) -> str:
    """(slices, rows, columns) as people write it: columns x rows x slices."""
    slices, rows, columns = slices_rows_columns
    return f"{columns} x {rows} x {slices}"


def time_of(seconds: float | None, between: tuple[float, float] | None = None) -> str:
    """'about 3 min', a range where that is not sure: '2 min to 4 min'."""
    if seconds is None:
        return _("time not known yet")
    low, high = map(duration, between or (seconds, seconds))
    if low == high:
        return _("about {time}").format(time=low)
    return _("{low} to {high}").format(low=low, high=high)


def needs(grid_shape: tuple[int, int, int], needs: float, has: float | None, time: str) -> str:
    """'256 x 256 x 180, needs 2.1 of 8.0 GB, about 3 min'."""
    memory = of_size(needs, has) if has else size(needs)
    return _("{shape}, needs {memory}, {time}").format(shape=shape(grid_shape), memory=memory, time=time)


def progress(stage: str, fraction: float, seconds_left: float | None) -> str:
    """'Diffusion: 42 %, 2 min left'."""
    percent = f"{100 * fraction:.0f} %"
    if seconds_left is None:
        return _("{stage}: {percent}").format(stage=word(stage), percent=percent)
    return _("{stage}: {percent}, {time} left").format(stage=word(stage), percent=percent, time=duration(seconds_left))
