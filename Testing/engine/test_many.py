"""Many devices: processes with slabs of slices give the volume that one process gives."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import DiffusionMBIRLib as mbir
from Testing.engine import many
from Testing.engine.jobs_helpers import small_prior

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("many")
    priors = [str(small_prior(path, modality=modality, name=modality)) for modality in ("CT", "MR")]
    (path / "cases").write_bytes(pickle.dumps(many.cases(*priors)))
    return path


@pytest.fixture(scope="module")
def alone(folder) -> dict[str, Any]:
    made = {}
    for name, (scan, settings) in pickle.loads((folder / "cases").read_bytes()).items():
        made[name] = mbir.reconstruct(scan, settings=settings)
    return made


@pytest.mark.parametrize("count", [2, 4])
def test_processes_give_the_volume_that_one_gives(folder, alone, count):
    group = many.started(count, folder)
    for process in group:
        _, said = process.communicate(timeout=240)
        assert process.returncode == 0, said
    found = pickle.loads((folder / f"found-{count}").read_bytes())
    assert list(found) == list(alone)
    off = {}
    for name, (volume, deviation, residual, nfe) in found.items():
        expected = alone[name]
        assert volume.grid == expected.volume.grid
        assert (volume.unit, nfe) == (expected.volume.unit, expected.nfe)
        off[name] = np.abs(volume.array - expected.volume.array).max() / np.ptp(expected.volume.array)
        assert residual == pytest.approx(expected.residual, rel=1e-4)
        if deviation is not None:
            scale = expected.deviation.array.max()
            np.testing.assert_allclose(deviation, expected.deviation.array, atol=1e-4 * scale)
    assert max(off.values()) < 1e-5, off
