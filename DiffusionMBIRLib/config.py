"""The one table of settings: name, default, range, unit and help of each; everything that shows a setting reads it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from .errors import InputError
from .methods import METHODS
from .methods.base import STARTS

DEMOS = ("ct", "mri")
MASKS = ("uniform1d", "gaussian1d", "equispaced", "poisson2d")  # of simulated k-space
START_NAMES = tuple(start.name for start in STARTS)
PROJECTORS = ("auto", "own", "astra", "torch-radon", "rtk")
TV_AXES = ("z", "xyz")  # directions of the total variation in the data step
SCHEDULES = ("karras", "geometric")
COMPLEX_PRIORS = ("auto", "phase", "real-imaginary", "two-channel")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")
DEVICES = "auto, cpu, cuda, cuda:N or mps (Apple's GPU, for networks; all else on the CPU)"


def setting(
    default: Any,
    label: str,
    help: str,
    *,
    unit: str = "",
    range: tuple[float, float] | None = None,
    choices: Sequence[str] = (),
    option: str = "",
) -> Any:
    """A dataclass field that carries how to show and check itself; option: on the command line, if not by its name."""
    metadata = {"label": label, "help": help, "unit": unit, "range": range, "choices": choices, "option": option}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class ReconSettings:
    """Settings of one reconstruction.  Strengths refer to an operator scaled to norm 1 and to the prior's value scale,
    so that they mean the same for every image size, number of views and task.
    """

    method: str = setting("dual", "Method", "Reconstruction method.", choices=METHODS)
    prior: str = setting("ct-compact-v1", "Prior", "Installed id or file of the diffusion prior or supervised network.")
    steps: int = setting(
        20, "Steps", "Noise levels; dual and dds evaluate the network once a level, mbir twice.", range=(1, 5000)
    )
    start: str = setting(
        "admm-tv", "Start", "Volume that the noise is added to at the first level.", choices=START_NAMES
    )
    start_sweeps: int = setting(30, "Start sweeps", "ADMM sweeps of an admm-tv start.", range=(1, 5000))
    sigma_start: float = setting(
        0.0, "First noise level", "In the prior's value scale; 0: fitted to the number of views.", range=(0.0, 400.0)
    )
    sigma_end: float = setting(0.01, "Last noise level", "In the prior's value scale.", range=(0.0005, 1.0))
    schedule: str = setting("karras", "Schedule", "Spacing of the noise levels of dual and dds.", choices=SCHEDULES)
    noise_span: int = setting(
        1,
        "Noise span",
        "Slices from one noise image of dual or dds to the next independent one; those in between are turned from one "
        "into the other (spherical interpolation), so that neighbours see like noise. 1: all slices are independent.",
        range=(1, 4096),
    )
    eta: float = setting(1.0, "Fresh noise", "Share of fresh noise in each renoising of dds.", range=(0.0, 1.0))
    snr: float = setting(0.16, "Corrector SNR", "Signal-to-noise ratio of mbir's Langevin corrector.", range=(0.0, 1.0))
    rho: float = setting(0.0025, "ADMM penalty", "Penalty of the ADMM split.", range=(0.0, 100.0))
    lam: float = setting(
        2e-4, "Strength across slices", "Weight of total variation along z; 0: off.", range=(0.0, 10.0)
    )
    tv_axes: str = setting(
        "z", "TV directions", "Along the slices alone (z), or in all three directions (xyz).", choices=TV_AXES
    )
    weigh_spacing: bool = setting(
        True,
        "Weigh spacing",
        "Count differences across slices by pixel size over slice spacing, so that strengths mean the same for thin "
        "and thick slices; otherwise from slice to slice, as published.",
    )
    share_variables: bool = setting(
        True, "Share variables", "Carry the ADMM variables of dds from one noise level to the next."
    )
    extrapolation: float = setting(
        0.0,
        "Extrapolation",
        "How much of its change since the last level dds adds to each denoised volume; helps where levels are few.",
        range=(0.0, 1.0),
    )
    damping: float = setting(
        0.5,
        "Damping",
        "How fast the variable that couples data and prior in dual shrinks: by the ratio of a noise level to the last "
        "one to this power; 0: not at all.",
        range=(0.0, 10.0),
    )
    temperature: float = setting(
        0.7,
        "Temperature",
        "Of dual and planes: level that noise is filled up to before the prior is asked, in multiples of the one that "
        "it is told; the lower, the nearer to the mean of all that fits; 1.4: samples of dual spread about as the "
        "posterior does.",
        range=(0.0, 2.0),
    )
    relaxation: float = setting(
        1.0,
        "Relaxation",
        "How far dual goes on in the way of its data step; above 1 where levels are few, or views of a narrow range; "
        "0: for few levels, by the number of views.",
        range=(0.0, 1.9),
    )
    antithetic: bool = setting(
        False,
        "Antithetic noise",
        "Of dual: the network is asked twice at each level, with noise and with its negative, and the mean is taken: "
        "nearer to the mean of all that fits than twice the levels.",
    )
    cg_steps: int = setting(5, "CG steps", "Conjugate-gradient steps of each ADMM sweep.", range=(1, 100))
    preconditioner: float = setting(
        0.0,
        "Preconditioner",
        "Of CT: precondition conjugate gradient with the convolution that the scan amounts to, and carry its direction "
        "from one noise level to the next.  Regularisation, as a share of the largest eigenvalue; 0: off.",
        range=(0.0, 100.0),
    )
    sweeps: int = setting(0, "ADMM sweeps", "Sweeps a noise level; 0: 1, but 10 for mbir-slow.", range=(0, 100))
    published: bool = setting(
        False,
        "As published",
        "Follow the published code of mbir or dds to the letter: from noise through the levels of the prior's training "
        "(start and both noise levels do not count), the last slice tied to the first, its own time steps and ends; "
        "mbir's conjugate gradient errs beyond one step and its corrector depends on the slices a batch (0: 12).",
    )
    complex_prior: str = setting(
        "auto",
        "Complex images",
        "How a prior of magnitudes serves complex MR images: on the real part after taking out a phase estimated from "
        "the middle of k-space (phase), or on real and imaginary part alike (real-imaginary, as published); a prior of "
        "two channels knows both (two-channel); auto: two-channel if the prior is one, else phase.",
        choices=COMPLEX_PRIORS,
    )
    virtual_coils: int = setting(
        12,
        "Virtual coils",
        "Receivers of an MR scan are combined into at most this many that hold most of the signal; 0: all are kept.",
        range=(0, 256),
    )
    noise_weight: float = setting(
        1.0,
        "Noise weight",
        "How far noise in the data, of CT also the error of pixels, loosens the fit to them as levels fall below it, "
        "in multiples of it; 0: not at all.",
        range=(0.0, 100.0),
    )
    metal_hu: float = setting(
        0.0,
        "Metal",
        "Of raw CT: what a first reconstruction shows above this is metal, whose rays do not count and which is put "
        "back into the result; 0: no metal.",
        unit="HU",
        range=(0.0, 1e5),
        option="metal",
    )
    edge_gradient: bool = setting(
        True,
        "Edge gradient",
        "Of CT: what line integrals lose on slopes, as detector cells add up photons, is given back.  Off: for "
        "sinograms of programs that add up line integrals instead.",
    )
    bin_pixels: int = setting(
        1,
        "Bin pixels",
        "Of CT: samples are drawn on pixels of so many times the side, from as many columns of the detector averaged, "
        "and interpolated: the pixels that the prior has learnt, where those of the scan are finer.",
        range=(1, 16),
    )
    samples: int = setting(
        1, "Samples", "Posterior samples: the result is their mean, with their standard deviation.", range=(1, 64)
    )
    uncertainty: bool = setting(
        False,
        "Uncertainty",
        "Beside the volume: half-widths within which 90 and 95 % of the true values are expected, what of the detail "
        "the prior filled in, and a warning where the scan is unlike those that this was calibrated with.",
    )
    tv_lam: float = setting(
        1e-3,
        "TV strength",
        "Weight of isotropic total variation; 0: admm-tv takes that with which views of CT that are left out are told "
        "best, all else none.",
        range=(0.0, 10.0),
    )
    tv_sweeps: int = setting(200, "TV sweeps", "ADMM sweeps of admm-tv.", range=(1, 5000))
    tv_grids: int = setting(
        1,
        "TV grids",
        "Grids that admm-tv goes through, each with half the pixel side of the one before it, from every second view "
        "where there are many; those before the last take twice as many sweeps as the next.  CT only.",
        range=(1, 5),
    )
    sirt_iterations: int = setting(200, "SIRT iterations", "Iterations of sirt.", range=(1, 100000))
    cgls_iterations: int = setting(
        15, "CGLS steps", "Steps of cgls: more follow the data closer, and their noise.", range=(1, 10000)
    )
    sart_passes: int = setting(20, "OS-SART passes", "How often os-sart goes through all views.", range=(1, 10000))
    subsets: int = setting(
        10, "Subsets", "Groups of views of os-sart, at most one for each view of a point; 1: SIRT.", range=(1, 1000)
    )
    fbp_filter: str = setting("ramp", "FBP filter", "Filter of fbp.", choices=("ramp", "hann"))
    cg_iterations: int = setting(30, "SENSE iterations", "Conjugate-gradient steps of sense-cg.", range=(1, 1000))
    cg_lam: float = setting(1e-3, "SENSE strength", "Tikhonov weight of sense-cg.", range=(0.0, 10.0))
    l1_lam: float = setting(2e-3, "Wavelet strength", "Weight of wavelet sparsity (espirit-l1).", range=(0.0, 10.0))
    slices_per_batch: int = setting(
        0, "Slices a batch", "Slices denoised at once; 0: fitted to memory.", range=(0, 4096)
    )
    tile: int = setting(
        0,
        "Tile",
        "The diffusion prior sees slices in overlapping tiles of at most this side, so that large ones need less "
        "memory and more time; for priors that treat each position alike, as our own do.  0: whole slices.",
        unit="px",
        range=(0, 8192),
    )
    compile: bool = setting(
        False,
        "Compile",
        "Compile the network first (torch.compile, needs a C++ compiler on a CPU): half a minute once, then 1.3 times "
        "faster on two CPU cores; values differ by rounding.",
    )
    seed: int = setting(0, "Seed", "Seed of all noise.", range=(0, 2**63 - 1))
    projector: str = setting(
        "auto",
        "Projector",
        "Operator of CT: our own (auto is the same), ASTRA's, torch-radon's or RTK's where they are installed; "
        "torch-radon's back-projection is not the exact adjoint.",
        choices=PROJECTORS,
    )
    device: str = setting("auto", "Device", f"{DEVICES}.")
    precision: str = setting(
        "auto",
        "Precision",
        "Of the network's arithmetic; auto: bfloat16 where the processor or GPU computes in it natively and the prior "
        "is not a published one, else float32.",
        choices=PRECISIONS,
    )

    def __post_init__(self) -> None:
        for item in fields(self):
            check(item.name, getattr(self, item.name), item.metadata, item.type)

    @classmethod
    def preset(cls, name: str, **changes: Any) -> ReconSettings:
        """Settings of a preset file (Resources/Presets/NAME.toml) for its method, or for ``method`` among the changes,
        with single fields changed.
        """
        return replace(cls(**preset_values(name, changes.get("method"))), **changes)


def check(name: str, value: Any, metadata: Any, kind: Any) -> None:
    """Raise InputError that names a setting if a value is not of its kind, range or choices."""
    numeric = str(kind) in ("int", "float")
    if str(kind) == "bool" and not isinstance(value, bool):
        raise InputError(f"setting {name}: {value!r} is neither true nor false")
    if numeric and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise InputError(f"setting {name}: {value!r} is not a number")
    if str(kind) == "str" and not (isinstance(value, str) and len(value) < 4096 and value.isprintable()):
        raise InputError(f"setting {name}: {str(value)[:60]!r} is not a text")
    if str(kind) == "int" and not (math.isfinite(value) and value == int(value)):
        raise InputError(f"setting {name}: {value!r} is not a whole number")
    if metadata["range"] and not metadata["range"][0] <= value <= metadata["range"][1]:
        raise InputError(f"setting {name}: {value} lies outside {metadata['range'][0]:g} to {metadata['range'][1]:g}")
    if metadata["choices"] and value not in metadata["choices"]:
        raise InputError(f"setting {name}: {value!r} is not one of {', '.join(metadata['choices'])}")


def preset_values(name: str, method: str | None = None) -> dict[str, Any]:
    """The entries of a preset for a method, by default its own one, and those of the preset that it names as ``base``
    where it says nothing else.

    name: of a file in Resources/Presets without its suffix, never a path.  A table in a file, [dual], holds what that
    method has otherwise than the others.  An unknown preset raises InputError that lists those at hand.
    """
    files = [_read_preset(name)]
    while "base" in files[0][0]:
        files.insert(0, _read_preset(files[0][0].pop("base")))
    if method is None:
        own = [common["method"] for common, _ in files if "method" in common]
        method = own[-1] if own else ReconSettings.method
    values: dict[str, Any] = {}
    for common, tables in files:
        values |= common | tables.get(str(method), {})
    return values


def _read_preset(name: str) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """(entries for all methods, those of single methods by their name) of a preset's file."""
    import sys

    from .models import resources

    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    folder = resources() / "Presets"
    path = folder / f"{name}.toml"
    if not (isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name) and path.is_file()):
        names = ", ".join(sorted(p.stem for p in folder.glob("*.toml")))
        raise InputError(f"preset {name!r} is not known; presets: {names}")
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is no TOML ({error}); install the package again") from None
    tables = {key: value for key, value in entries.items() if isinstance(value, dict)}
    common = {key: value for key, value in entries.items() if key not in tables}
    known = {item.name for item in fields(ReconSettings)}
    unknown = sorted({key for table in tables.values() for key in table} - known | set(common) - known - {"base"})
    if unknown:
        raise InputError(f"{path}: setting {unknown[0]!r} is not known")
    foreign = sorted(set(tables) - set(METHODS))
    if foreign:
        raise InputError(f"{path}: {foreign[0]!r} is not a method; use one of {', '.join(METHODS)}")
    return common, tables
