"""Training on complex images: their phases, the weights to start from, and a prior that comes out of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from DiffusionMBIRLib.cli import main
from DiffusionMBIRLib.denoisers import SliceDenoiser
from DiffusionMBIRLib.geometry import Grid
from DiffusionMBIRLib.models import MR_VALUE, read_card
from DiffusionMBIRLib.priors.checkpoints import load_prior
from DiffusionMBIRLib.priors.compact import CompactConfig, CompactUNet
from DiffusionMBIRLib.training.complex_images import for_real_and_imaginary, random_phase
from DiffusionMBIRLib.training.slices import SliceSampler, fixed_images
from DiffusionMBIRLib.training.stacks import Stack
from DiffusionMBIRLib.volume import Volume


def stack() -> Stack:
    full = torch.rand(5, 24, 24, generator=torch.Generator().manual_seed(0))
    return Stack("p", "p", 1.0, [full.half(), full[:, ::2, ::2].half()])


def test_two_channels_are_the_image_under_a_phase():
    one, two = (SliceSampler([stack()], size=16, value=MR_VALUE, channels=n) for n in (1, 2))
    for step in range(6):
        plain, parts = one.batch(step, 1)[0], two.batch(step, 1)[0]
        assert parts.shape == (1, 2, 16, 16)
        assert torch.allclose(parts.norm(dim=1, keepdim=True), plain, atol=1e-6)
        assert torch.equal(parts, two.batch(step, 1)[0])
    fixed, again = (fixed_images([stack()], size=16, value=MR_VALUE, count=6, channels=2)[0] for _ in range(2))
    assert torch.equal(fixed, again)
    plain = fixed_images([stack()], size=16, value=MR_VALUE, count=6)[0]
    assert torch.allclose(fixed.norm(dim=1, keepdim=True), plain, atol=1e-6)


def test_phases_are_mostly_smooth_point_anywhere_and_some_are_rough():
    phases = torch.stack([random_phase(32, np.random.default_rng(k)) for k in range(200)])
    turned = torch.polar(torch.ones_like(phases), phases)
    assert abs(turned.mean()) < 0.1
    # Second differences in space: of smooth phases next to nothing.
    bend = phases.diff(n=2, dim=-1).square().mean((1, 2)).sqrt()
    rough = float((bend > 0.03).float().mean())
    assert 0.15 < rough < 0.4
    assert float(bend.median()) < 0.02
    spread = (phases - phases.mean((1, 2), keepdim=True)).std()
    assert 0.3 < float(spread) < 1.5


def test_weights_of_magnitudes_serve_real_and_imaginary_parts():
    torch.manual_seed(0)
    one, two = (CompactUNet(CompactConfig(n, (8, 16), 1, 16)) for n in (1, 2))
    with torch.no_grad():
        one.head.weight.normal_()
    two.load_state_dict(for_real_and_imaginary(one.state_dict()))
    assert one.head.bias is not None
    image, level = torch.rand(2, 1, 16, 16), torch.tensor([0.1, 0.2])
    with torch.inference_mode():
        expected = one(image, level) - torch.nn.functional.pixel_shuffle(one.head.bias[None, :, None, None], 2).repeat(
            1, 1, 8, 8
        )
        # Real images over the root of two are half of the sum and half of the difference of the parts.
        found = two(torch.cat([image * math.sqrt(2), torch.zeros_like(image)], 1), level)
        assert torch.allclose(found[:, :1] * math.sqrt(2), expected, atol=1e-5)
        assert float(found[:, 1:].abs().max()) > 1e-3  # of the same features, with other signs


def write(folder):
    folder.mkdir()
    for k in range(3):
        array = np.random.default_rng(k).integers(1, 900, (4, 24, 24)).astype(np.int16)
        Volume(array, Grid(array.shape, (0.8, 0.8, 3.0)), unit="").save(folder / f"p{k}.nrrd")
    return [str(folder)]


SMALL = ["--quiet", "--widths", "8", "16", "--blocks", "1", "--images", "8", "--batch", "4", "--size", "16"]
SMALL += ["--held-out-images", "2", "--device", "cpu"]


def test_a_prior_of_complex_images_from_one_of_magnitudes(tmp_path, capsys):
    volumes = write(tmp_path / "in")
    options = [*volumes, *SMALL, "--modality", "MR"]
    assert main(["train", *options, "--id", "one", "-o", str(tmp_path / "one")]) == 0
    start = tmp_path / "one" / "one.safetensors"
    more = ["--channels", "2", "--id", "two", "--initial", str(start), "-o", str(tmp_path / "two")]
    assert main(["train", *options, *more]) == 0
    path = tmp_path / "two" / "two.safetensors"
    card = read_card(path)
    assert (card.channels, card.modality, card.training["initial"]["id"]) == (2, "MR", "one")
    assert card.sigma_data == read_card(start).sigma_data
    assert (tmp_path / "two" / "samples.png").is_file()
    denoise = SliceDenoiser(load_prior(path, precision=torch.float32), 2)
    x = torch.randn(3, 20, 18, dtype=torch.complex64)
    assert denoise(x, 0.3).shape == x.shape
    assert denoise(x, 0.3).imag.abs().max() > 0


def test_two_channels_are_for_mr_only(tmp_path, capsys):
    code = main(["train", *write(tmp_path / "in"), *SMALL, "--channels", "2", "-o", str(tmp_path / "out")])
    assert code == 2
    assert "add --modality MR" in capsys.readouterr().err


@pytest.mark.parametrize("size", [16, 20])
def test_rough_phases_fit_any_size(size):
    assert all(random_phase(size, np.random.default_rng(k)).shape == (size, size) for k in range(20))
