"""Files that are whole or not there at all; the standard library is enough."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import Cancelled, EngineError, InputError


@contextmanager
def replacing(path: Path, suffix: str) -> Iterator[Path]:
    """A temporary name beside ``path`` to write to; it takes the place of ``path`` only when the block succeeds.

    So a full disk, a crash or a cancelled run leaves neither a half file nor a damaged older one.  Raises InputError
    where the folder is missing and EngineError where writing fails.
    """
    if not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist; make it first")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give the name of a file")
    temporary = path.with_name(f".{uuid.uuid4().hex}{suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except (EngineError, Cancelled):
        raise
    except (RuntimeError, OSError) as error:
        raise EngineError(f"{path}: could not be written; is the disk full or the folder read-only?") from error
    finally:
        temporary.unlink(missing_ok=True)
