"""What the measurement determines, against closed forms with dense matrices."""

from __future__ import annotations

import torch

from DiffusionMBIRLib.operators import LinearOperator, Space
from DiffusionMBIRLib.uncertainty.split import DETAIL, LEAST_NOISE, filled_share, measured_part


class Dense(LinearOperator):
    """A matrix on volumes of one slice."""

    def __init__(self, matrix: torch.Tensor, side: int) -> None:
        self._matrix, self._side = matrix, side
        space = Space((1, side, side), matrix.dtype)
        super().__init__(space, Space((1, 1, len(matrix)), matrix.dtype))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self._matrix @ x.reshape(-1)).reshape(self.range.shape)

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return (self._matrix.T @ y.reshape(-1)).reshape(self.domain.shape)


def operator(side: int = 6, rows: int = 12) -> tuple[Dense, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    matrix = torch.randn(rows, side * side, generator=generator, dtype=torch.float64)
    matrix /= torch.linalg.matrix_norm(matrix, 2)
    return Dense(matrix, side), matrix


def test_the_measured_part_is_wieners():
    A, matrix = operator()
    x = torch.randn(A.domain.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for noise in (0.0, 0.05, 0.5):
        weight = max(noise / DETAIL, LEAST_NOISE) ** 2
        gram = matrix.T @ matrix
        wanted = torch.linalg.solve(gram + weight * torch.eye(len(gram), dtype=gram.dtype), gram @ x.reshape(-1))
        found = measured_part(A, x, noise, steps=60)
        assert torch.allclose(found.reshape(-1), wanted, atol=1e-9)


def test_what_no_measurement_tells_is_not_measured():
    A, matrix = operator()
    x = torch.randn(A.domain.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    in_range = torch.linalg.pinv(matrix) @ matrix @ x.reshape(-1)
    hidden = (x.reshape(-1) - in_range).reshape(x.shape)
    assert torch.linalg.vector_norm(measured_part(A, hidden, 0.0)) < 1e-10
    seen = measured_part(A, in_range.reshape(x.shape), 0.0, steps=60)
    assert torch.linalg.vector_norm(seen.reshape(-1) - in_range) < 0.02 * torch.linalg.vector_norm(in_range)


def test_shares_lie_between_nothing_and_all():
    detail = torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(4))
    flat = torch.full_like(detail, 0.7)
    assert filled_share(detail, flat).max() < 1e-9
    assert filled_share(flat, detail).min() > 0.999
    half = filled_share(detail, detail.roll(1, 0))
    assert 0.3 < half.mean() < 0.7
    assert filled_share(flat, flat).abs().max() == 0
    assert filled_share(torch.complex(detail, detail), torch.zeros(2, 16, 16, dtype=torch.complex64)).max() == 0
