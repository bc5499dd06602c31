"""The result of a finished job as the user's own files."""

from __future__ import annotations

from pathlib import Path

from ..names import beside
from .folder import DEVIATION, RESULT, JobFolder
from .partial import NAME as PARTIAL


def save_result(folder: JobFolder, name: str, output: Path) -> None:
    """Write the job's result ``name`` to ``output``, and the volumes that it has beside it under marked names.

    Raises InputError and EngineError as reading and writing volumes does.
    """
    from ..io.volumes import read_volume

    read_volume(folder.path / name).save(output)
    for companion, mark in _companions(folder):
        read_volume(folder.path / companion).save(beside(output, mark))


def _companions(folder: JobFolder) -> list[tuple[str, str]]:
    """(file, mark of its name) of the volumes that a result has beside it."""
    stem = RESULT.partition(".")[0]
    found = [(path.name, path.name[len(stem) :].partition(".")[0]) for path in folder.path.glob(f"{stem}-*.nrrd")]
    known = [(name, mark) for name, mark in found if name != PARTIAL]
    return sorted(known) + ([(DEVIATION, "-deviation")] if (folder.path / DEVIATION).is_file() else [])
