"""Arrays of NumPy's .npy files."""

from __future__ import annotations

import tokenize
from pathlib import Path

import numpy as np

from ..errors import InputError
from .files import require_file
from .sizes import require_memory


def load_npy(path: Path) -> np.ndarray:
    """A .npy file; nothing is unpickled, and a size that the file does not have is refused before memory is taken."""
    require_file(path)
    try:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError, SyntaxError, OverflowError, tokenize.TokenError) as error:
        raise InputError(f"{path}: cannot be read as an array of numbers; is it truncated or pickled?") from error
    if not isinstance(mapped, np.ndarray):
        mapped.close()
        raise InputError(f"{path}: holds no single array")
    if mapped.size:
        require_memory(str(path), mapped.shape or (1,), max(mapped.dtype.itemsize, 8))
    return np.array(mapped)
