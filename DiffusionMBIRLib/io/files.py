"""Files to read that have an end, and files written whole or not at all; the standard library is enough."""

from __future__ import annotations

import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import Cancelled, EngineError, InputError
from ..moves import move_over
from ..names import require_unicode


def require_file(path: Path) -> None:
    """Raise InputError unless ``path`` is a file with an end, which a pipe or a device is not."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if not stat.S_ISREG(mode):
        raise InputError(f"{path}: is no regular file; give the name of a file")


@contextmanager
def replacing(path: Path, suffix: str) -> Iterator[Path]:
    """A temporary name beside ``path`` to write to; it takes the place of ``path`` only when the block succeeds.

    So a full disk, a crash or a cancelled run leaves neither a half file nor a damaged older one.  Raises InputError
    where the folder is missing and EngineError where writing fails.
    """
    require_unicode(path)
    if not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist; make it first")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give the name of a file")
    temporary = path.with_name(f".{uuid.uuid4().hex[:12]}{suffix}")  # short: Windows ends paths at 259 characters
    try:
        yield temporary
        move_over(temporary, path)
    except (EngineError, Cancelled):
        raise
    except (RuntimeError, OSError) as error:
        raise EngineError(f"{path}: could not be written; is the disk full or the folder read-only?") from error
    finally:
        temporary.unlink(missing_ok=True)
