"""Slices in tiles: where they lie, what they give beside whole slices, and how a reconstruction uses them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.config import ReconSettings
from DiffusionMBIRLib.denoisers import SliceDenoiser, TiledPrior
from DiffusionMBIRLib.errors import Cancelled, InputError
from DiffusionMBIRLib.estimate import estimate
from DiffusionMBIRLib.io.volumes import read_volume
from DiffusionMBIRLib.models import ModelCard, resources
from DiffusionMBIRLib.priors.analytic import GaussianPrior
from DiffusionMBIRLib.priors.checkpoints import load_prior
from DiffusionMBIRLib.priors.compact import CompactConfig, CompactUNet
from DiffusionMBIRLib.priors.networks import CompactPrior, ScorePrior
from DiffusionMBIRLib.rates import Pace
from DiffusionMBIRLib.tasks import SPARSE_VIEW
from DiffusionMBIRLib.tiling import tile_starts, tiled_pixels
from Testing.engine.helpers import body

SMALL = CompactConfig(widths=(8, 12), blocks=1, embedding=16)
HU = 2000.0


def network(config: CompactConfig = SMALL, seed: int = 0) -> CompactUNet:
    """With every weight drawn, the zeros of a fresh network as well, so that everything counts for something."""
    torch.manual_seed(seed)
    made = CompactUNet(config)
    with torch.no_grad():
        for weight in made.parameters():
            weight.normal_(std=1.0 / max(1, weight[0].numel()) ** 0.5)
    return made


def prior(config: CompactConfig = SMALL) -> CompactPrior:
    card = ModelCard("small", "CT", channels=config.image_channels, network=config.to_dict())
    return CompactPrior(network(config), card)


class Watched(GaussianPrior):
    """Of independent pixels; notes the sizes that it is asked for."""

    def __init__(self) -> None:
        super().__init__(0.3, 0.1)
        self.asked: list[tuple[int, int]] = []

    def denoise(self, x, sigma):
        self.asked.append((x.shape[-2], x.shape[-1]))
        return super().denoise(x, sigma)


# --- where tiles lie


@pytest.mark.parametrize("multiple", [1, 4, 16])
def test_tiles_cover_an_axis_overlap_and_begin_on_the_networks_grid(multiple):
    side, overlap = 8 * multiple, 4 * multiple
    for length in range(1, 60 * multiple, max(1, multiple // 3)):
        starts = tile_starts(length, side, overlap, multiple)
        assert starts[0] == 0
        assert all(start % multiple == 0 for start in starts)
        assert starts[-1] < length <= starts[-1] + side
        assert all(0 < later - earlier <= side - overlap for earlier, later in pairwise(starts))
    assert tile_starts(side, side, overlap, multiple) == [0]


def test_pixels_of_all_tiles():
    assert tiled_pixels((100, 50), 0) == tiled_pixels((100, 50), 128) == 5000
    assert tiled_pixels((96, 64), 64) == 2 * 64 * 64
    assert 3 < tiled_pixels((2048, 2048), 256) / 2048**2 <= 4


# --- what they give


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        CompactConfig(widths=(8, 8, 12), blocks=2, embedding=16, stem=1),
        CompactConfig(widths=(8, 8, 12), blocks=2, embedding=16, stem=1, light_levels=1),
    ],
)
def test_the_reach_bounds_what_counts_for_a_pixel(config):
    made, side = network(config).double(), 4 * config.reach // 8 * 8
    farthest = 0
    for shift in range(config.multiple):
        x = torch.randn(1, 1, side, side, dtype=torch.float64, requires_grad=True)
        row = side // 2 + shift
        made(x, torch.zeros(1, dtype=torch.float64))[0, 0, row, side // 2].backward()
        assert x.grad is not None
        rows = x.grad[0, 0].abs().amax(dim=1).nonzero()[:, 0]
        farthest = max(farthest, row - int(rows[0]), int(rows[-1]) - row)
    assert config.reach - config.multiple <= farthest <= config.reach


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("shape", [(200, 170), (90, 233), (129, 64)])
def test_tiles_of_four_reaches_give_what_whole_slices_do(shape, channels):
    whole = prior(replace(SMALL, image_channels=channels))
    tiles = TiledPrior(whole, 4 * whole.reach + 2 * whole.multiple)
    assert max(shape) > tiles.side
    x = torch.randn(2, channels, *shape, generator=torch.Generator().manual_seed(0))
    for sigma in (0.02, 2.0):
        expected = whole.denoise(x, sigma)
        assert float((expected - x).abs().mean()) > 1e-3
        torch.testing.assert_close(tiles.denoise(x, sigma), expected, rtol=0, atol=2e-5)


def test_a_volume_through_a_slice_denoiser():
    whole = prior()
    x = torch.randn(3, 150, 130).transpose(1, 2)
    found = SliceDenoiser(TiledPrior(whole, 128), 2)(x, 0.2)
    torch.testing.assert_close(found, SliceDenoiser(whole, 2)(x, 0.2), rtol=0, atol=2e-5)
    assert found.stride() == x.stride()


@cache
def chest() -> torch.Tensor:
    """A slice of the sample chest, (1, 1, 192, 192) in the prior's value scale."""
    array = read_volume(resources() / "SampleData" / "ct_chest.nrrd").array[20, 32:224, 32:224]
    return torch.from_numpy((array[None, None].astype(np.float32) + 1000) / HU)


@pytest.mark.slow
@pytest.mark.parametrize(("sigma", "greatest_hu", "rms_hu"), [(0.01, 1.0, 0.05), (0.03, 1.0, 0.1), (0.3, 20.0, 1.0)])
def test_the_bundled_prior_shows_no_seams(sigma, greatest_hu, rms_hu):
    """At low noise levels below 1 HU everywhere; at high ones, which need more of a slice, below 1 HU in the mean."""
    bundled = load_prior("ct-compact-v1", precision="float32")
    noisy = chest() + sigma * torch.randn(chest().shape, generator=torch.Generator().manual_seed(0))
    difference = HU * (TiledPrior(bundled, 160).denoise(noisy, sigma) - bundled.denoise(noisy, sigma))
    assert 0 < float(difference.abs().max()) < greatest_hu
    assert float(difference.square().mean().sqrt()) < rms_hu


def test_blending_is_what_keeps_seams_away():
    """A prior that answers every other tile with another constant: one goes smoothly over into the other."""

    class Erring(Watched):
        reach = 100

        def denoise(self, x, sigma):
            super().denoise(x, sigma)
            return torch.full_like(x, float(len(self.asked) % 2))

    out = TiledPrior(Erring(), 32).denoise(torch.zeros(1, 1, 80, 32), 0.1)
    assert set(out.unique().tolist()) >= {0.0, 1.0}
    assert 0.1 < float(out.diff(dim=2).abs().max()) < 0.2  # over half of the 16 pixels that they share


def test_no_more_than_a_tile_is_seen_at_once_and_a_run_can_end_between_tiles():
    asked, turns = Watched(), []
    tiles = TiledPrior(asked, 24, poll=lambda: turns.append(len(asked.asked)))
    x = torch.randn(2, 1, 100, 60)
    assert torch.allclose(tiles.denoise(x, 0.2), GaussianPrior(0.3, 0.1).denoise(x, 0.2), atol=1e-6)
    assert max(max(shape) for shape in asked.asked) <= 24
    assert turns == list(range(len(asked.asked)))
    assert len(turns) == 15

    def cancelled() -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        TiledPrior(asked, 24, poll=cancelled).denoise(x, 0.2)
    asked.asked.clear()
    tiles.denoise(x[..., :20, :24], 0.2)
    assert asked.asked == [(20, 24)]


def test_priors_that_need_whole_slices_and_sides_that_are_too_small_are_named():
    card = ModelCard("theirs", "CT")
    for whole in (GaussianPrior.smooth((32, 32)), ScorePrior(network(), card, multiple=4, precision=torch.float32)):
        with pytest.raises(InputError, match=f"setting tile: prior '{whole.card.id}' takes whole slices only"):
            TiledPrior(whole, 64)
    with pytest.raises(InputError, match="setting tile: prior 'small' needs tiles of 16 pixels or more, not 12"):
        TiledPrior(prior(), 12)


# --- the setting


def test_a_reconstruction_in_tiles(tmp_path):
    scan, asked = mbir.simulate(body((2, 32, 32)), views=8), Watched()
    settings = ReconSettings(steps=3, start="noise", cg_steps=2, seed=1)
    whole = mbir.reconstruct(scan, prior=GaussianPrior(0.3, 0.1), settings=settings)
    tiled = mbir.reconstruct(scan, prior=asked, settings=replace(settings, tile=12))
    np.testing.assert_allclose(tiled.volume.array, whole.volume.array, atol=0.05)
    assert set(asked.asked) <= {(12, 12), (12, 11), (11, 12), (11, 11), (12, 8), (8, 12), (8, 8)}
    assert tiled.nfe == whole.nfe
    assert tiled.provenance["settings"]["tile"] == 12
    with pytest.raises(InputError, match="setting tile: prior 'gaussian' takes whole slices only"):
        mbir.reconstruct(scan, prior=GaussianPrior.smooth((32, 32)), settings=replace(settings, tile=12))


def test_tiles_cost_time_and_save_memory():
    pace, shape = Pace(network=1e-6, solver=1e-12), (20, 2048, 2048)
    whole, tiled = (
        estimate(shape, ReconSettings(tile=tile, start="noise"), SPARSE_VIEW, views=2, pace=pace) for tile in (0, 512)
    )
    assert whole.memory_bytes - tiled.memory_bytes == pytest.approx(700 * (2048**2 - 512**2), rel=0.01)
    assert whole.seconds is not None
    assert tiled.seconds is not None
    assert 2 < tiled.seconds / whole.seconds <= 4
    supervised = [ReconSettings(method="lahiri", tile=tile) for tile in (0, 512)]
    assert len({estimate(shape, settings, SPARSE_VIEW, pace=pace) for settings in supervised}) == 1
