"""A real CUDA device beside the CPU: operators, solvers, networks and whole reconstructions give its numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from Testing.engine.test_cuda_rehearsal import OPERATORS, SOLVERS, drawn
from Testing.engine.test_cuda_rehearsal_runs import NETWORKS, ct_scan, prior_on, reconstructed

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def agree(found: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    assert found.is_cuda
    assert float((found.cpu() - expected).abs().max()) <= tolerance * float(expected.abs().max())


@pytest.mark.parametrize("name", OPERATORS)
@torch.inference_mode()
def test_operators_agree(name):
    def images(device):
        A = OPERATORS[name](device)
        x, y = drawn(A.domain.shape, device, A.dtype), drawn(A.range.shape, device, A.dtype, 1)
        return A @ x, A.adjoint(y), A.gram(x), A.gradient(x, y), A.gradients(y)(x), A.distance(x, y)

    if name == "coils, fewer":
        pytest.skip("eigenvectors are known up to a phase, which decides how its data look")
    for expected, found in zip(images("cpu"), images("cuda"), strict=True):
        agree(found, expected, 1e-5)


@pytest.mark.parametrize("name", SOLVERS)
@torch.inference_mode()
def test_solvers_agree(name):
    agree(SOLVERS[name]("cuda", 3), SOLVERS[name]("cpu", 3), 1e-3)


@pytest.mark.parametrize("name", NETWORKS)
@torch.inference_mode()
def test_networks_agree(name):
    channels = 2 if "two" in name else 1
    expected, found = (prior_on(at, name).denoise(drawn((2, channels, 16, 16), at), 0.3) for at in ("cpu", "cuda"))
    agree(found, expected, 5e-3)  # convolutions may use TF32


@pytest.mark.parametrize("method", ["fbp", "sirt", "admm-tv"])
def test_methods_without_noise_agree(method):
    expected, found = (reconstructed(device, ct_scan(), method=method).volume.array for device in ("cpu", "cuda"))
    assert np.abs(found - expected).max() <= 1e-3 * np.abs(expected).max()


@pytest.mark.parametrize("method", ["dds", "mbir"])
def test_methods_with_noise_of_their_own_fit_the_data_as_well(method):
    expected, found = (reconstructed(device, ct_scan(), method=method, steps=20) for device in ("cpu", "cuda"))
    assert found.residual == pytest.approx(expected.residual, rel=0.3)


def test_a_solver_never_waits_between_its_steps():
    """Torch itself refuses to wait here; the rehearsals count by a table of what waits."""
    with torch.inference_mode():
        A = OPERATORS["x-ray"]("cuda")
        y = A @ drawn(A.domain.shape, "cuda")
        try:
            torch.cuda.set_sync_debug_mode("error")
            A.gram(A.adjoint(y))
        finally:
            torch.cuda.set_sync_debug_mode("default")
