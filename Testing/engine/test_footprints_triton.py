"""The kernels for CUDA compute what torch does; Triton's interpreter runs them on a CPU, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.operators.footprints import ConeTransform
from Testing.engine.cones import GRID, scanners
from Testing.engine.helpers import ROOT

CODE = """
from dataclasses import replace
import torch
from DiffusionMBIRLib.geometry import Grid
from DiffusionMBIRLib.operators.footprints import ConeTransform
from Testing.engine.cones import GRID, scanners
from Testing.engine.operators_contract import drawn
grid = replace(GRID, shape=(5, 4, 5))
for name, dtype, most in (("flat", torch.float64, 1e-12), ("arc", torch.float32, 1e-5)):
    geometry = scanners()[name].take([1])
    compiled, plain = (ConeTransform(geometry, grid, dtype=dtype, kernel=k) for k in ("triton", "torch"))
    x, y = drawn(plain.domain, 1), drawn(plain.range, 2)
    for a, b in ((compiled.forward(x), plain.forward(x)), (compiled.adjoint(y), plain.adjoint(y))):
        assert float((a - b).norm()) <= most * float(b.norm()) and float(b.norm()) > 0, (name, dtype)
print("the same")
"""


@pytest.mark.slow
def test_the_kernels_compute_what_torch_does():
    pytest.importorskip("triton", reason="Triton is not installed")
    environment = dict(os.environ, TRITON_INTERPRET="1", PYTHONPATH=str(ROOT), PYTHONWARNINGS="ignore")
    done = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, env=environment, timeout=300, check=False
    )
    assert done.stdout == "the same\n", done.stderr


def test_tilted_detectors_are_refused():
    pytest.importorskip("triton", reason="Triton is not installed")
    with pytest.raises(InputError, match="kernel 'triton' takes detectors whose rows' direction is the axis only"):
        ConeTransform(scanners()["rolled"], GRID, kernel="triton")
