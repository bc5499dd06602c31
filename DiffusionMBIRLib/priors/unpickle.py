"""Reading checkpoints of others without running what they may carry.

A torch checkpoint is a pickle, and a pickle is a program.  torch's restricted reader builds tensors and plain
containers only; beside these we let in the three names that a NumPy number needs, since published checkpoints keep one
in the state of their optimizer.  Whatever asks for more is refused, and nothing of it has run by then.
"""

from __future__ import annotations

import pickle
import re
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import InputError

ADVICE = "if you trust its origin, export its weights as safetensors"


def load_tensors(path: Path) -> Any:
    """The content of a torch file, its tensors on the CPU and left on disk until they are used.

    Raises InputError for a file that is truncated or foreign, or whose pickle asks for code (it names which).
    """
    try:
        if tarfile.is_tarfile(path):  # torch's first format, whose reader before torch 2.6 was not restricted
            raise InputError(f"{path}: refused: a tar file of an old torch can run code; {ADVICE}")
        with torch.serialization.safe_globals(_numpy_numbers()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols that only damage names
            # Only the zip format of torch 1.6 and later can be mapped into memory.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except InputError:
        raise
    except pickle.UnpicklingError as error:
        raise InputError(f"{path}: {_refusal(str(error))}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror or error})") from None
    except Exception:  # torch's restricted reader raises nearly anything, depending on where the damage lies
        raise InputError(f"{path}: not a torch checkpoint, or a truncated one; copy the file again") from None


def _numpy_numbers() -> list[Any]:
    """What the pickle of a NumPy float64 names: its constructor, dtype, and the dtype of float64."""
    constructor: Any = np.float64(0).__reduce__()[0]
    names = ("numpy.core.multiarray", "numpy._core.multiarray")  # before NumPy 2, and from it on
    return [*(_known_as(module, constructor) for module in names), np.dtype, type(np.dtype(np.float64))]


def _known_as(module: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` under the name by which pickles look it up, whichever NumPy is installed."""

    def scalar(*values: Any) -> Any:
        return function(*values)

    scalar.__module__, scalar.__qualname__ = module, scalar.__name__
    return scalar


def _refusal(message: str) -> str:
    wanted = re.search(r"(?:GLOBAL|module) ([\w.]+)", message)
    if wanted:
        return f"refused: its pickle asks for {wanted[1]}, which could run code; {ADVICE}"
    if re.search(r"(?i)unsupported|not allowed|can only|trying to call", message):
        return f"refused: its pickle holds more than tensors and numbers; {ADVICE}"
    return "not a torch checkpoint, or a truncated one; copy the file again"
