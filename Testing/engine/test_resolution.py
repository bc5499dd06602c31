"""Priors told of pixel sizes, and one of coarser pixels on finer slices: against the posterior mean worked out as one
system of equations.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.config import ReconSettings
from DiffusionMBIRLib.denoisers import ResolutionPrior, TiledPrior, at_pixel_size
from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.geometry import Grid
from DiffusionMBIRLib.models import ModelCard
from DiffusionMBIRLib.priors.analytic import GaussianPrior
from DiffusionMBIRLib.priors.compact import CompactConfig, CompactUNet
from DiffusionMBIRLib.priors.networks import CompactPrior
from Testing.engine.helpers import body

FACTORS = [(1, 1), (2, 2), (1, 3), (4, 2)]


def coarse_prior() -> GaussianPrior:
    return GaussianPrior.smooth((4, 6), mean=0.4, deviation=0.3, length_px=1.0)


def spreading(factors: tuple[int, int]) -> torch.Tensor:
    """U as a matrix, (fine pixels, coarse pixels)."""
    rows, columns = (torch.kron(torch.eye(n), torch.ones(k, 1)) for n, k in zip((4, 6), factors, strict=True))
    return torch.kron(rows, columns).double()


def covariance(factors: tuple[int, int], detail: float) -> torch.Tensor:
    """Of fine images: U C U' + tau^2 (1 - U P), with C of the coarse prior."""
    spectrum, unit = coarse_prior().spectrum, torch.eye(24, dtype=torch.float64).reshape(24, 4, 6)
    coarse = torch.fft.ifft2(torch.fft.fft2(unit) * spectrum).real.reshape(24, 24)
    up = spreading(factors)
    return up @ coarse @ up.T + detail**2 * (torch.eye(len(up)) - up @ up.T / math.prod(factors))


@pytest.mark.parametrize("factors", FACTORS)
@pytest.mark.parametrize("sigma", [0.0, 0.05, 0.6])
def test_the_posterior_mean_is_exact(factors, sigma):
    detail, (rows, columns) = 0.1, factors
    x = torch.randn(3, 2, 4 * rows, 6 * columns, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = ResolutionPrior(coarse_prior(), factors, detail=detail).denoise(x, sigma)
    if sigma == 0:
        torch.testing.assert_close(found, x)
        return
    known = covariance(factors, detail)
    noisy = known + sigma**2 * torch.eye(len(known), dtype=torch.float64)
    shifted = x.reshape(6, -1).T - 0.4
    expected = (0.4 + known @ torch.linalg.solve(noisy, shifted)).T.reshape(x.shape)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


def test_its_error_is_what_the_model_says():
    """Drawn from the model, so that a wrong level of the averaged noise would show."""
    factors, detail, sigma = (2, 2), 0.1, 0.4
    known, up = covariance(factors, detail), spreading(factors)
    generator = torch.Generator().manual_seed(1)
    coarse = coarse_prior().draw((4000, 1, 4, 6), generator)
    fine = (coarse.reshape(4000, 24) @ up.T).reshape(4000, 1, 8, 12)
    white = torch.randn(fine.shape, dtype=torch.float64, generator=generator)
    x0 = fine + detail * (white - ((white.reshape(4000, 96) @ up) @ up.T / 4).reshape(fine.shape))
    x = x0 + sigma * torch.randn(x0.shape, dtype=torch.float64, generator=generator)
    error = float((ResolutionPrior(coarse_prior(), factors, detail=detail).denoise(x, sigma) - x0).square().mean())
    noisy = known + sigma**2 * torch.eye(96, dtype=torch.float64)
    posterior = known - known @ torch.linalg.solve(noisy, known)
    assert error == pytest.approx(float(posterior.diagonal().mean()), rel=0.03)


def test_detail_that_nothing_is_known_of_is_left_alone():
    x = torch.randn(2, 1, 8, 12, dtype=torch.float64)
    change = ResolutionPrior(coarse_prior(), (2, 2), detail=math.inf).denoise(x, 0.3) - x
    means = torch.nn.functional.avg_pool2d(x, 2)
    expected = coarse_prior().denoise(means, 0.15) - means
    torch.testing.assert_close(change, expected.repeat_interleave(2, 2).repeat_interleave(2, 3))
    flat = ResolutionPrior(coarse_prior(), (2, 2), detail=0.0).denoise(x, 0.3)
    torch.testing.assert_close(flat[..., ::2, ::2], flat[..., 1::2, 1::2])


def test_levels_and_sizes_are_those_of_the_volume():
    seen = ResolutionPrior(GaussianPrior(0.3, 0.1, sigma_min=0.01, sigma_max=10.0), (4, 1), detail=0.1)
    assert (seen.sigma_min, seen.sigma_max) == (0.02, 20.0)
    assert (seen.reach, seen.multiple) == (3, 4)
    assert ResolutionPrior(coarse_prior(), (2, 2), detail=0.1).reach is None


def test_a_factor_from_pixel_sizes():
    def factors(prior_mm, volume_mm):
        return ResolutionPrior.between(coarse_prior(), prior_mm, volume_mm, detail=0.1).factors

    assert factors((1.0, 1.0), (0.5, 0.25)) == (2, 4)
    assert factors((1.0, 1.0), (0.98, 1.04)) == (1, 1)
    for fine in ((0.7, 0.7), (0.5, 0.7), (2.0, 2.0), (1.2, 1.2)):
        with pytest.raises(InputError, match=r"pixels of 1 x 1 mm, which is no whole multiple of the volume's"):
            factors((1.0, 1.0), fine)


def test_what_cannot_be_done_right_is_refused():
    with pytest.raises(InputError, match="slices of 9 x 12 pixels cannot be cut into blocks of 2 x 2"):
        ResolutionPrior(coarse_prior(), (2, 2), detail=0.1).denoise(torch.zeros(1, 1, 9, 12), 0.1)
    for factors in ((0, 1), (1.5, 1)):
        with pytest.raises(InputError, match="whole numbers"):
            ResolutionPrior(coarse_prior(), factors, detail=0.1)
    for detail in (-0.1, math.nan):
        with pytest.raises(InputError, match="standard deviation"):
            ResolutionPrior(coarse_prior(), (2, 2), detail=detail)


def test_tiles_of_a_prior_at_another_resolution():
    config = CompactConfig(widths=(8, 12), blocks=1, embedding=16)
    torch.manual_seed(0)
    network = CompactUNet(config)
    with torch.no_grad():
        network.head.weight.normal_(std=0.1)
    coarse = CompactPrior(network, ModelCard("small", "CT", network=config.to_dict()))
    whole = ResolutionPrior(coarse, (2, 2), detail=0.05)
    tiles = TiledPrior(whole, 8 * (coarse.reach + coarse.multiple))
    assert whole.reach == 2 * coarse.reach + 1
    x = torch.randn(1, 1, 2 * tiles.side, tiles.side // 2, generator=torch.Generator().manual_seed(0))
    expected = whole.denoise(x, 0.3)
    assert float((expected - whole.denoise(x + 0.1, 0.3)).abs().max()) > 1e-3
    torch.testing.assert_close(tiles.denoise(x, 0.3), expected, rtol=0, atol=2e-5)


def test_a_reconstruction_with_a_prior_of_coarser_pixels():
    """What it knows of coarse images helps where the data do not tell."""
    volume = body((2, 32, 32))
    scan, settings = mbir.simulate(volume, views=4), ReconSettings(steps=8, start="noise", seed=1)
    smooth = GaussianPrior.smooth((16, 16), mean=0.3, deviation=0.3, length_px=1.5)
    white = GaussianPrior(0.3, 0.3**2)
    runs = [
        mbir.reconstruct(scan, prior=ResolutionPrior(prior, (2, 2), detail=0.05), settings=settings)
        for prior in (white, smooth)
    ]
    errors = [float(np.sqrt(np.mean((run.volume.array - volume.array) ** 2))) for run in runs]
    assert errors[1] < 0.8 * errors[0]
    assert [run.nfe for run in runs] == [8, 8]


def told_prior(config: CompactConfig) -> CompactPrior:
    torch.manual_seed(0)
    network = CompactUNet(config)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return CompactPrior(network, ModelCard("small", "CT", network=config.to_dict()))


def test_a_prior_is_told_of_the_pixels_of_a_grid():
    prior = told_prior(CompactConfig(widths=(8, 12), blocks=1, embedding=16, knows_pixels=True))
    x = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    untold = prior.denoise(x, 0.3)
    told = {
        mm: at_pixel_size(prior, Grid((2, 16, 16), mm)) for mm in ((0.5, 2.0, 9.0), (1.0, 1.0, 3.0), (4.0, 4.0, 1.0))
    }
    found = [one.denoise(x, 0.3) for one in told.values()]
    assert torch.equal(found[0], found[1])  # the geometric mean of the sides in the plane
    assert all(float((a - b).abs().max()) > 1e-3 for a, b in ((untold, found[1]), (found[1], found[2])))
    assert torch.equal(prior.denoise(x, 0.3), untold)  # the prior itself stays as it was
    one_image = told[1.0, 1.0, 3.0].denoise(x[:1], 0.3)
    torch.testing.assert_close(one_image, found[1][:1], rtol=0, atol=1e-5)


def test_a_prior_that_knows_of_no_pixels_stays_as_it_is():
    for prior in (told_prior(CompactConfig(widths=(8, 12), blocks=1, embedding=16)), coarse_prior()):
        assert at_pixel_size(prior, Grid((2, 16, 16), (0.5, 0.5, 1.0))) is prior


def test_a_reconstruction_tells_its_prior_of_the_pixels():
    class Listening(GaussianPrior):
        heard: list[float] = []  # noqa: RUF012

        def at_pixel_size(self, pixel_mm: float) -> GaussianPrior:
            self.heard.append(pixel_mm)
            return self

    volume = body((2, 16, 16))
    settings = ReconSettings(steps=2, start="noise")
    prior = Listening(0.3, 0.3**2)
    for factors in ((1, 1), (2, 2)):
        mbir.reconstruct(
            mbir.simulate(volume, views=4), prior=ResolutionPrior(prior, factors, detail=0.05), settings=settings
        )
    pixel_mm = math.sqrt(volume.grid.spacing_mm[0] * volume.grid.spacing_mm[1])
    assert prior.heard == pytest.approx([pixel_mm, 2 * pixel_mm])
