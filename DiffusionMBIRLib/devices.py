"""Where the engine computes, and in which precision its networks do: the one place that everything asks.

Needs torch only once a question is asked.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from .config import DEVICES, PRECISIONS
from .errors import InputError

if TYPE_CHECKING:
    import torch

# By the names of torch.cpu.get_capabilities: of x86 processors, then of ARM.
_BFLOAT16_UNITS = ("avx512_bf16", "amx_bf16", "amx_tile", "bf16")
_CLEARLY = 0.9  # of the time in float32
_LOST = ("cuda error", "cudnn error", "cublas error", "cudnn_status", "cublas_status", "no cuda gpus", "mps backend")


# --- devices


def choose_device(name: str) -> torch.device:
    """'auto' (CUDA where it is, else Apple's MPS, else the CPU), 'cpu', 'cuda', 'cuda:N' or 'mps' as a torch device.

    Raises InputError for a device that is unknown or not there.
    """
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    apple = torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if count else "mps" if apple else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device {name!r} is not known; use {DEVICES}") from None
    if device.type not in ("cpu", "cuda", "mps"):
        raise InputError(f"device {name!r} is not supported; use {DEVICES}")
    if device.type == "cuda" and (device.index or 0) >= count:
        raise InputError(f"device {name!r} is not there: {count} CUDA device(s) found; use --device auto")
    if device.type == "mps" and not apple:
        raise InputError(f"device {name!r} is not there: torch finds no Apple GPU; use --device auto")
    return device


def volume_device(device: torch.device) -> torch.device:
    """Where volumes, operators and solvers live while networks compute on ``device``.

    With MPS that is the CPU: it lacks double precision and sparse products.  The networks, which take nearly all of
    the time, fetch each sub-batch themselves.
    """
    import torch

    return torch.device("cpu") if device.type == "mps" else device


def memory_of(device: torch.device) -> int:
    """Bytes of memory that a device has of its own; 0 where it shares the host's."""
    import torch

    return int(torch.cuda.get_device_properties(device).total_memory) if device.type == "cuda" else 0


def device_text(device: torch.device) -> str:
    """The device in words, with what does not run on it."""
    rest = volume_device(device)
    return str(device) if rest == device else f"{device} (networks; all else on {rest})"


def device_name(device: torch.device) -> str:
    """'cpu (8 threads)' or the GPU's name."""
    import torch

    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    text = device_text(device)
    return f"Apple {text}" if device.type == "mps" else f"{text} ({torch.get_num_threads()} threads)"


def is_device_failure(error: BaseException) -> bool:
    """True for what torch raises when a GPU is lost or its driver fails in the middle of a run."""
    import torch

    own: Any = getattr(torch, "AcceleratorError", ())  # since torch 2.8
    told = type(error) is RuntimeError and any(mark in str(error).lower() for mark in _LOST)
    return isinstance(error, own) or told


# --- precision


def choose_precision(
    wanted: str | torch.dtype, device: torch.device, *, trained_in_float32: bool = False
) -> torch.dtype:
    """The precision of a network's arithmetic on a device: a torch type, its name, or 'auto'.

    'auto' is bfloat16 where the device computes in it natively, else float32: emulated, it takes a CPU several times
    as long.  It is float32 for networks that were ``trained_in_float32``, on GPUs older than compute capability 8.0
    (float16, which those have, overflows where bfloat16 does not) and on MPS.

    Raises InputError for a precision that is unknown or that torch cannot compute in on this device.
    """
    import torch

    name = precision_name(wanted) if isinstance(wanted, torch.dtype) else wanted
    if name not in PRECISIONS:
        raise InputError(f"precision {name!r} is not known; use one of {', '.join(PRECISIONS)}")
    if name == "auto":
        return torch.bfloat16 if not trained_in_float32 and _prefers_bfloat16(device) else torch.float32
    precision: torch.dtype = getattr(torch, name)
    if precision != torch.float32 and not _computes_in(precision, device):
        raise InputError(f"precision {name!r} cannot be computed in on {device}; use auto or float32")
    return precision


def precision_name(precision: torch.dtype) -> str:
    """'float32' of torch.float32."""
    return str(precision).removeprefix("torch.")


def arithmetic(device: torch.device, precision: torch.dtype) -> torch.autocast:
    """The context in which a network computes in a precision, with weights in float32."""
    import torch

    if precision == torch.float32:
        return torch.autocast(device.type, enabled=False)
    return torch.autocast(device.type, precision)


def _computes_in(precision: torch.dtype, device: torch.device) -> bool:
    """Whether torch does; where it does not it raises, or warns and goes on in float32."""
    import torch

    image, kernel = (torch.ones((1, 1, side, side), device=device) for side in (4, 3))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with torch.autocast(device.type, precision):
                return torch.conv2d(image, kernel).dtype == precision
    except RuntimeError:
        return False


def _prefers_bfloat16(device: torch.device) -> bool:
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    native = native_bfloat16()
    return _bfloat16_pays() if native is None else native


def native_bfloat16() -> bool | None:
    """Whether this processor multiplies in bfloat16 and torch makes use of it; None where torch cannot tell."""
    import torch

    if not torch.backends.mkldnn.is_available():  # whose kernels they are, on ARM as well
        return False
    known: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    told = [bool(known[unit]) for unit in _BFLOAT16_UNITS if unit in known]
    return any(told) if told else None


@cache
def _bfloat16_pays() -> bool:
    """Whether a slice takes a network of the bundled priors' kind clearly less time in bfloat16; measured once."""
    import torch

    from .priors.compact import CompactConfig, CompactUNet

    with torch.random.fork_rng(devices=[]):
        network = CompactUNet(CompactConfig()).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    image = torch.zeros((1, 1, 64, 64)).to(memory_format=torch.channels_last)

    def evaluate(precision: torch.dtype) -> None:
        with torch.inference_mode(), arithmetic(image.device, precision):
            network(image, torch.zeros(1))

    return clearly_faster(lambda: evaluate(torch.bfloat16), lambda: evaluate(torch.float32))


def clearly_faster(
    one: Callable[[], None], other: Callable[[], None], clock: Callable[[], float] = time.perf_counter
) -> bool:
    """Whether ``one`` takes less than 0.9 of the time of ``other``: the best of three turns after one to warm up."""
    best = [float("inf")] * 2
    for turn in range(4):
        for k, call in enumerate((one, other)):
            started = clock()
            call()
            if turn:
                best[k] = min(best[k], clock() - started)
    return best[0] < _CLEARLY * best[1]
