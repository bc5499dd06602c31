"""An archive to attach to an issue: what was asked, what happened, with which versions - and nothing of a patient."""

from __future__ import annotations

import json
import os
import platform
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import EngineError, InputError
from ..models import user_data
from ..provenance import installed_version, plain, software_version
from .files import rewriting
from .folder import JobFolder
from .redact import redactor
from .request import Request

_LINES_OF_LOG = 2000
_PACKAGES = ("torch", "numpy", "SimpleITK", "h5py", "safetensors", "pydicom")
_OF_INPUT = ("kind", "unit", "bytes")


def save_issue_report(
    job_path: str | os.PathLike[str], zip_path: str | os.PathLike[str], extra: Mapping[str, str] | None = None
) -> None:
    """Write the archive: log, request without names, paths and arrays, summary, versions.

    extra: further facts, such as the version of Slicer.  Raises EngineError where it cannot be written.
    """
    folder, target = JobFolder(Path(job_path)), Path(zip_path)
    try:
        request: Request | None = folder.request
    except InputError:
        request = None
    clean = redactor(request)
    texts = {
        "log.txt": "\n".join(folder.log_tail(_LINES_OF_LOG)),
        "request.json": _json(_request(request)),
        "summary.json": _json(folder.summary() | {"status": folder.status, "begun": folder.begun()}),
        "versions.json": _json(_versions()),
        "extra.json": _json(dict(extra or {})),
    }
    try:
        with rewriting(target) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
            for name, text in texts.items():
                file.writestr(name, clean(text))
    except OSError as error:
        raise EngineError(f"{target}: could not be written ({error.strerror}); choose another folder") from error


def _request(request: Request | None) -> dict[str, Any]:
    if request is None:
        return {"request": "cannot be read"}
    source = {key: request.input[key] for key in _OF_INPUT if key in request.input}
    source["shape"] = request.input.get("grid", {}).get("shape")
    source["spacing_mm"] = request.input.get("grid", {}).get("spacing_mm")
    settings = plain(request.settings)
    return {"input": source, "task": request.task, "scan": request.scan, "settings": settings, "device": request.device}


def _versions() -> dict[str, Any]:
    found: dict[str, Any] = {name: installed_version(name) for name in _PACKAGES}
    found |= {"DiffusionMBIR": software_version(), "python": sys.version.split()[0], "system": platform.platform()}
    return found | {"user_folder_exists": user_data().is_dir()}


def _json(entries: Mapping[str, Any]) -> str:
    return json.dumps(entries, indent=1, default=str)
