"""Checkpoints of published networks opened as they are: one sigma convention, their layouts, their recorded outputs."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.models import ModelCard, ValueScale
from DiffusionMBIRLib.priors.analytic import GaussianPrior
from DiffusionMBIRLib.priors.checkpoints import card_of
from DiffusionMBIRLib.priors.networks import NoisePrior, ScorePrior, ddpm_sigmas
from DiffusionMBIRLib.priors.published import PublishedWeights, trained_names
from Testing.engine.published_files import adm, averaged, images, ncsnpp, score_sde
from Testing.engine.vectors import SHARED, arrays, error, layout, meta_tensors, recorded


@pytest.fixture
def published(tmp_path) -> Path:
    path = tmp_path / "checkpoint_5.pth"
    torch.save(score_sde(ncsnpp(0), averaged(1)), path)
    return path


# --- one sigma convention


class ScoreOf(nn.Module):
    """The exact score of a prior."""

    def __init__(self, prior: GaussianPrior) -> None:
        super().__init__()
        self.prior = prior

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        level = float(sigma[0])
        return (self.prior.denoise(x, level) - x) / level**2


class NoiseOf(ScoreOf):
    """The exact noise of a prior in DDPM's convention, with variances as further channels."""

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        level = float(ddpm_sigmas()[round(float(step[0]))])
        scaled = x * (1 + level**2) ** 0.5
        noise = (scaled - self.prior.denoise(scaled, level)) / level
        return torch.cat([noise, torch.full_like(noise, 7.0)], dim=1)


@pytest.mark.parametrize("step", [0, 1, 250, 999])
@pytest.mark.parametrize(("kind", "of"), [(ScorePrior, ScoreOf), (NoisePrior, NoiseOf)])
def test_scores_and_noise_become_means(kind, of, step):
    truth = GaussianPrior.smooth((8, 8))
    prior = kind(of(truth), ModelCard(id="a", modality="CT"), multiple=1, precision=torch.float32)
    sigma = float(ddpm_sigmas()[step])
    x = images(2, 1, 8, 8)
    # float32: the mean is what is left of numbers of the size of sigma
    assert torch.allclose(prior.denoise(x, sigma), truth.denoise(x, sigma), atol=2e-6 * (1 + sigma))
    assert torch.equal(prior.denoise(x, 0.0), x)


def test_steps_lie_between_whole_ones():
    prior = NoisePrior(nn.Identity(), ModelCard(id="a", modality="CT"), multiple=1, precision=torch.float32)
    table = ddpm_sigmas()
    assert [prior.step_of(table[k]) for k in (0, 17, 999)] == pytest.approx([0, 17, 999], abs=1e-9)
    assert prior.step_of((table[3] * table[4]) ** 0.5) == pytest.approx(3.5)
    assert (prior.step_of(1e-4), prior.step_of(1e4)) == (0, 999)


# --- files


def test_averaged_weights_are_preferred(published):
    x, sigma = images(2, 1, 16, 16), torch.tensor([0.5, 0.5])
    for which, network in (("ema", averaged(1)), ("raw", ncsnpp(0))):
        prior = mbir.load_prior(published, weights=which)
        assert torch.allclose(prior.network(x, sigma), network(x, sigma), atol=1e-5)
        assert torch.allclose(prior.denoise(x, 0.5), x + 0.25 * network(x, sigma), atol=1e-5)
    assert (prior.sigma_min, prior.sigma_max) == (0.02, 300)  # from the table in the file
    assert (prior.card.channels, prior.card.value) == (1, ValueScale(-1000.0, 2000.0, "HU"))
    assert prior.denoise(images(1, 1, 19, 22), 0.3).shape == (1, 1, 19, 22)
    with pytest.raises(InputError, match="weights 'best' are not known"):
        mbir.load_prior(published, weights="best")


def test_a_plain_adm_network(tmp_path):
    path = tmp_path / "adm.pt"
    torch.save(adm().state_dict(), path)
    prior = mbir.load_prior(path, config={"head_channels": adm().config.head_channels})
    x, sigma = images(2, 1, 16, 16), float(ddpm_sigmas()[400])
    with torch.inference_mode():
        noise = adm()(x / (1 + sigma**2) ** 0.5, torch.full((2,), 400.0))
    assert noise.shape[1] == 2
    assert torch.allclose(prior.denoise(x, sigma), x - sigma * noise[:, :1], atol=1e-4)
    assert prior.sigma_max == pytest.approx(157.4, abs=0.1)


def test_other_containers_of_the_same_weights(published, tmp_path):
    from safetensors.torch import save_file

    x = images(1, 1, 16, 16)
    expected = mbir.load_prior(published, weights="raw").denoise(x, 0.4)
    weights = ncsnpp(0).state_dict()
    save_file(weights, str(tmp_path / "plain.safetensors"))
    torch.save({"model": weights}, tmp_path / "bare.pt")
    torch.save(weights, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    for name in ("plain.safetensors", "bare.pt", "legacy.pth"):
        assert torch.equal(mbir.load_prior(tmp_path / name).denoise(x, 0.4), expected), name


def test_numbers_of_an_older_numpy(published, tmp_path):
    """The module of NumPy's number was called numpy.core before NumPy 2, and is numpy._core since."""
    for name in (b"numpy.core.multiarray", b"numpy._core.multiarray"):
        path = tmp_path / "renamed.pth"
        with zipfile.ZipFile(published) as source, zipfile.ZipFile(path, "w") as target:
            for entry in source.namelist():
                content = source.read(entry)
                if entry.endswith("data.pkl"):
                    content, count = re.subn(rb"numpy\._?core\.multiarray", name, content)
                    assert count == 1
                target.writestr(entry, content)
        assert mbir.load_prior(path).card.channels == 1


LAYOUTS = {
    "AAPM_256_ncsnpp_continuous": ("ncsnpp", 1),
    "fastmri_knee_320_ncsnpp_continuous": ("ncsnpp", 1),
    "fastmri_knee_320_ncsnpp_continuous_complex": ("ncsnpp", 2),
    "dds_AAPM256": ("adm", 1),
    "dds_fastmri_knee_320_complex": ("adm", 2),
}


@recorded
@pytest.mark.parametrize("name", LAYOUTS)
def test_the_published_networks_are_recognised_by_their_layouts(name):
    entries, (kind, channels) = layout(name), LAYOUTS[name]
    weights = {k.removeprefix("module."): v for k, v in meta_tensors(entries["model"]).items()}
    weights.pop("sigmas", None)
    card = card_of(Path("any.pth"), PublishedWeights(weights, kind))
    assert (card.network["kind"], card.channels) == (kind, channels)
    if kind == "ncsnpp":
        order = [k.removeprefix("module.") for k in entries["ema_shadow_params_order"]]
        assert trained_names(weights) == order


@pytest.mark.slow
@recorded
@pytest.mark.parametrize("name", ["ncsnpp_tiny_img64", "ncsnpp_tiny_img256layout", "ncsnpp_tiny_complex2ch"])
@pytest.mark.parametrize("which", ["ema", "raw"])
def test_recorded_scores(name, which):
    prior, v = mbir.load_prior(SHARED / "vectors" / f"{name}.pth", weights=which), arrays(name)
    for case in ("main", "lohi"):
        if f"x_{case}" in v:
            x, sigma = v[f"x_{case}"], v[f"sigma_{case}"]
            with torch.inference_mode():
                assert error(prior.network(x, sigma), v[f"score_{which}_{case}"]) < 1e-4
            for k in range(len(x)):
                mean = prior.denoise(x[k : k + 1], float(sigma[k]))
                expected = x[k] + sigma[k] ** 2 * v[f"score_{which}_{case}"][k]
                assert error(mean, expected[None]) < 1e-4


@recorded
def test_recorded_noise():
    # How many channels a head has is not in the weights: 64 as published, or the width where it is less, as here.
    prior = mbir.load_prior(SHARED / "vectors" / "dds_tiny_img64.pt")
    v = arrays("dds_tiny_img64")
    for case in ("main", "ends"):
        x, step = v[f"x_{case}"], v[f"t_{case}"]
        with torch.inference_mode():
            assert error(prior.network(x, step), v[f"out_{case}"]) < 1e-4
        for k, sigma in enumerate(ddpm_sigmas()[step.long()].tolist()):
            mean = prior.denoise(x[k : k + 1] * (1 + sigma**2) ** 0.5, sigma)
            expected = x[k] * (1 + sigma**2) ** 0.5 - sigma * v[f"out_{case}"][k, :1]
            assert error(mean, expected[None]) < 1e-4
