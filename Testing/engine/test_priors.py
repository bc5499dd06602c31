"""Priors: the closed-form Gaussian, the compact network, checkpoints and sub-batches."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from DiffusionMBIRLib.denoisers import SliceDenoiser
from DiffusionMBIRLib.errors import EngineError, InputError
from DiffusionMBIRLib.models import ModelCard, ValueScale
from DiffusionMBIRLib.priors.analytic import GaussianPrior
from DiffusionMBIRLib.priors.base import Prior
from DiffusionMBIRLib.priors.checkpoints import CompactPrior, load_prior, save_prior
from DiffusionMBIRLib.priors.compact import ChannelNorm, CompactConfig, CompactUNet, edm_denoise, pad_to_multiple
from Testing.engine.plain_networks import PlainCompact

SMALL = CompactConfig(widths=(8, 16, 24), blocks=1, embedding=16)


def random_network(config: CompactConfig = SMALL, seed: int = 0) -> CompactUNet:
    """A network whose zero-initialised layers hold numbers, so that every path counts."""
    torch.manual_seed(seed)
    network = CompactUNet(config)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(std=0.05)
    return network


def card(config: CompactConfig = SMALL, **options) -> ModelCard:
    return ModelCard(id="small", modality="CT", network=config.to_dict(), sigma_data=0.25, **options)


def exact_prior(config: CompactConfig = SMALL) -> CompactPrior:
    return CompactPrior(random_network(config), card(config), precision=torch.float32)


# --- the Gaussian in closed form


def gaussians() -> dict[str, GaussianPrior]:
    mean = torch.linspace(0, 1, 6 * 5).reshape(6, 5)
    return {"white": GaussianPrior(0.3, 0.04), "smooth": GaussianPrior.smooth((6, 5), mean=0.4), "field": GaussianPrior(
        mean, GaussianPrior.smooth((6, 5), length_px=1.0).spectrum
    )}  # fmt: skip


@pytest.mark.parametrize("name", ["white", "smooth", "field"])
@pytest.mark.parametrize("sigma", [0.05, 0.5, 5.0])
def test_gaussian_matches_the_dense_formula(name, sigma):
    prior = gaussians()[name]
    x = torch.randn(2, 1, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    spectrum = prior.spectrum.expand(6, 5)
    units = torch.eye(30, dtype=torch.float64).reshape(30, 6, 5)
    covariance = torch.fft.ifft2(torch.fft.fft2(units) * spectrum).real.reshape(30, 30)
    gain = covariance @ torch.linalg.inv(covariance + sigma**2 * torch.eye(30, dtype=torch.float64))
    mean = prior.mean.expand(6, 5).reshape(30)
    expected = mean + (x.reshape(2, 30) - mean) @ gain.T
    assert torch.allclose(prior.denoise(x, sigma).reshape(2, 30), expected, atol=1e-12)


@pytest.mark.parametrize("name", ["white", "smooth", "field"])
def test_gaussian_obeys_tweedie(name):
    """sigma^2 d/dx ln p(x; sigma) = D(x; sigma) - x, with the derivative taken numerically."""
    prior, sigma, step = gaussians()[name], 0.4, 1e-4
    x = torch.randn(1, 1, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    residual = prior.denoise(x, sigma) - x
    for row, column in ((0, 0), (3, 4), (5, 1)):
        shift = torch.zeros_like(x)
        shift[..., row, column] = step
        slope = (prior.log_density(x + shift, sigma) - prior.log_density(x - shift, sigma)) / (2 * step)
        assert float(slope) * sigma**2 == pytest.approx(float(residual[..., row, column]), rel=1e-6, abs=1e-9)


def test_gaussian_log_density_is_normalised():
    prior = gaussians()["smooth"]
    covariance = torch.fft.ifft2(
        torch.fft.fft2(torch.eye(30, dtype=torch.float64).reshape(30, 6, 5)) * prior.spectrum
    ).real.reshape(30, 30)
    dense = torch.distributions.MultivariateNormal(
        torch.full((30,), 0.4, dtype=torch.float64), covariance + 0.09 * torch.eye(30, dtype=torch.float64)
    )
    x = torch.rand(3, 1, 6, 5, dtype=torch.float64)
    assert torch.allclose(prior.log_density(x, 0.3)[:, 0], dense.log_prob(x.reshape(3, 30)), atol=1e-9)


def test_gaussian_draws_have_its_covariance():
    prior = GaussianPrior.smooth((8, 8), deviation=0.2, length_px=1.5)
    draws = prior.draw((4000, 1, 8, 8), torch.Generator().manual_seed(0))
    expected = torch.fft.ifft2(prior.spectrum).real
    centred = (draws - prior.mean).reshape(4000, 64)
    assert torch.allclose((centred.T @ centred / 4000)[0].reshape(8, 8), expected, atol=0.004)
    again = GaussianPrior.from_covariance(0.5, expected)
    assert torch.allclose(again.spectrum, prior.spectrum, atol=1e-9)


def test_gaussian_keeps_type_and_contract():
    for prior in gaussians().values():
        assert isinstance(prior, Prior)
        for dtype in (torch.float32, torch.float64):
            x = torch.rand(2, 1, 6, 5, dtype=dtype)
            assert prior.denoise(x, 0.3).dtype == dtype
            assert torch.allclose(prior.denoise(x, 0.0), x, atol=1e-6)
            assert torch.allclose(prior.denoise(x, 1e4), prior.mean.to(dtype).expand_as(x), atol=1e-6)


def test_gaussian_names_bad_input():
    with pytest.raises(InputError, match="negative"):
        GaussianPrior(0.0, -1.0)
    with pytest.raises(InputError, match="spectrum is"):
        gaussians()["smooth"].denoise(torch.zeros(1, 1, 5, 6), 0.1)
    with pytest.raises(InputError, match="two axes"):
        GaussianPrior(0.0, torch.ones(3))


# --- the compact network


@pytest.mark.parametrize("shape", [(1, 1), (7, 13), (16, 16), (24, 9), (33, 40)])
def test_any_size(shape):
    x = torch.randn(2, 1, *shape)
    for prior in (exact_prior(), CompactPrior(random_network(), card())):
        clean = prior.denoise(x, 0.3)
        assert clean.shape == x.shape
        assert clean.dtype == torch.float32
        assert bool(clean.isfinite().all())


def test_inside_does_not_depend_on_the_size():
    """Norms are local, so a pixel far from the border sees the same in a larger image."""
    prior = exact_prior(CompactConfig(widths=(8, 16), blocks=1, embedding=16))
    large = torch.randn(1, 1, 96, 96, generator=torch.Generator().manual_seed(0))
    inside, outside = prior.denoise(large[..., 16:80, 16:80], 0.2), prior.denoise(large, 0.2)
    assert torch.allclose(outside[..., 44:52, 44:52], inside[..., 28:36, 28:36], atol=1e-5)


def test_slices_do_not_see_each_other():
    prior = exact_prior()
    x = torch.randn(5, 1, 16, 24)
    together = prior.denoise(x, 0.2)
    for k in range(5):
        assert torch.allclose(together[k : k + 1], prior.denoise(x[k : k + 1], 0.2), atol=1e-5)


def test_limits_of_the_noise_level():
    prior = exact_prior()
    x = torch.rand(1, 1, 16, 16)
    assert torch.equal(prior.denoise(x, 0.0), x)
    assert torch.allclose(prior.denoise(x, 1e-6), x, atol=1e-4)
    noise = 1e5 * torch.randn(1, 1, 16, 16)
    assert torch.allclose(prior.denoise(x + noise, 1e5), prior.denoise(noise, 1e5), atol=1e-3)  # the image is forgotten
    untrained = CompactUNet(SMALL)  # with a head of zeros, D is the best linear guess for a mean of zero
    untrained.head.bias = None
    level = torch.full((1,), 0.5)
    assert torch.allclose(edm_denoise(untrained, x, level, 0.25), x * 0.0625 / 0.3125)


@pytest.mark.parametrize("sigma", [0.01, 0.3, 20.0])
def test_prior_matches_the_plain_network(sigma):
    network = random_network()
    for norm in (m for m in network.modules() if isinstance(m, ChannelNorm)):
        nn.init.normal_(norm.weight, mean=1, std=0.3)
        nn.init.normal_(norm.bias, std=0.3)
    plain = PlainCompact(SMALL, {k: v.double() for k, v in network.state_dict().items()})
    x = 0.5 + sigma * torch.randn(3, 1, 24, 16)
    level, variance = torch.full((3,), sigma, dtype=torch.float64), sigma**2 + 0.25**2
    hidden = plain(x.double() / variance**0.5, level.log() / 4)
    expected = x.double() * 0.25**2 / variance + hidden * sigma * 0.25 / variance**0.5
    clean = CompactPrior(network, card(), precision=torch.float32).denoise(x, sigma)
    assert float((clean - expected).abs().max()) < 2e-5 * float(expected.abs().max())


@pytest.mark.parametrize("labels", [(-0.4, -0.4), (-0.9, 0.5), (0.3,)])
def test_network_and_gradients_match_the_plain_network(labels):
    """In training a batch may hold many noise levels, or one that is told once."""
    network = random_network().double()
    weights = {k: v.detach().clone().requires_grad_() for k, v in network.state_dict().items()}
    x, label = torch.randn(2, 1, 16, 8, dtype=torch.float64), torch.tensor(labels, dtype=torch.float64)
    found, expected = network(x, label), PlainCompact(SMALL, weights)(x, label.expand(2))
    assert torch.allclose(found, expected, atol=1e-6)  # the network's frequencies are of float32
    found.square().sum().backward()
    expected.square().sum().backward()
    for name, parameter in network.named_parameters():
        assert torch.allclose(parameter.grad, weights[name].grad, rtol=1e-4, atol=1e-6), name


@pytest.mark.parametrize("pixels", [(0.7, 3.0), (1.5,)])
def test_a_network_that_knows_pixels_matches_the_plain_network(pixels):
    config = replace(SMALL, blocks=2, light_levels=2, knows_pixels=True)
    network = random_network(config).double()
    x, label = torch.randn(2, 1, 16, 8, dtype=torch.float64), torch.full((2,), -0.4, dtype=torch.float64)
    pixel_mm = torch.tensor(pixels, dtype=torch.float64)
    plain = PlainCompact(config, {k: v.detach() for k, v in network.state_dict().items()})
    found = network(x, label[: len(pixels)], pixel_mm)
    assert torch.allclose(found, plain(x, label, pixel_mm.expand(2)), atol=1e-6)
    assert torch.allclose(network(x, label, torch.zeros(2)), plain(x, label), atol=1e-6)  # 0: not known
    assert torch.allclose(network(x, label), plain(x, label), atol=1e-6)


def test_reduced_precision_stays_near():
    network, x = random_network(), torch.rand(2, 1, 32, 32)
    for sigma in (0.05, 0.5, 5.0):
        noisy = x + sigma * torch.randn(x.shape)
        exact = CompactPrior(network, card(), precision=torch.float32).denoise(noisy, sigma)
        reduced = CompactPrior(network, card(), precision=torch.bfloat16).denoise(noisy, sigma)
        assert reduced.dtype == torch.float32
        assert float((exact - reduced).norm() / exact.norm()) < 0.03


def test_memory_format_does_not_matter_and_input_stays():
    prior, x = exact_prior(), torch.rand(2, 1, 16, 16)
    before = x.clone()
    assert torch.allclose(prior.denoise(x.to(memory_format=torch.channels_last), 0.3), prior.denoise(x, 0.3), atol=1e-6)
    assert torch.equal(x, before)
    strided = torch.rand(16, 16, 2).permute(2, 0, 1)[:, None]
    assert torch.allclose(prior.denoise(strided, 0.3), prior.denoise(strided.contiguous(), 0.3), atol=1e-6)


def test_padding_repeats_the_border():
    x = torch.arange(6.0).reshape(1, 1, 2, 3)
    padded, size = pad_to_multiple(x, 4)
    assert padded.shape == (1, 1, 4, 4)
    assert size == (2, 3)
    assert padded[0, 0].tolist() == [[0, 1, 2, 2], [3, 4, 5, 5], [3, 4, 5, 5], [3, 4, 5, 5]]
    assert pad_to_multiple(padded, 4)[0] is padded


@pytest.mark.parametrize(
    "entries",
    [{"widths": []}, {"widths": [8, 0]}, {"blocks": "2"}, {"widths": 4}, {"dropout": 1}, {"light_levels": 5}],
)
def test_config_names_bad_entries(entries):
    with pytest.raises(InputError, match="compact-unet"):
        CompactConfig.from_dict({"kind": "compact-unet", **entries})
    with pytest.raises(InputError, match="kind"):
        CompactConfig.from_dict({"kind": "other"})


def test_config_round_trip():
    assert CompactConfig.from_dict(json.loads(json.dumps(SMALL.to_dict()))) == SMALL


# --- checkpoints


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "small.safetensors"
    save_prior(random_network(), card(licence="CC BY 4.0", value=ValueScale(0.0, 1.0, "a.u.")), path)
    return path


def test_round_trip(saved):
    prior = load_prior(saved, precision=torch.float32)
    assert isinstance(prior, Prior)
    assert prior.card == card(licence="CC BY 4.0", value=ValueScale(0.0, 1.0, "a.u."))
    assert (prior.sigma_min, prior.sigma_max) == (prior.card.sigma_min, prior.card.sigma_max)
    x = torch.rand(1, 1, 16, 16)
    exact = CompactPrior(random_network(), card(), precision=torch.float32).denoise(x, 0.3)
    assert torch.allclose(prior.denoise(x, 0.3), exact, atol=2e-3)  # weights are stored as float16
    assert [p.name for p in saved.parent.iterdir()] == ["small.safetensors"]


def test_truncated_files(saved):
    content = saved.read_bytes()
    for length in (0, 4, 20, 200, len(content) // 2, len(content) - 1):
        saved.write_bytes(content[:length])
        with pytest.raises(InputError, match=r"small\.safetensors"):
            load_prior(saved)


def test_foreign_files(saved, tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "foreign.safetensors"
    save_file({"a": torch.ones(2)}, str(path))
    with pytest.raises(InputError, match="no DiffusionMBIR model card"):
        load_prior(path)
    path.write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(InputError, match="not a safetensors file"):
        load_prior(path)


def test_weights_that_do_not_fit(saved, tmp_path):
    wider = replace(SMALL, widths=(8, 16, 32))
    save_prior(random_network(), card(wider), saved)
    with pytest.raises(InputError, match=r"do not fit.*decoder.*|do not fit.*encoder.*"):
        load_prior(saved)
    save_prior(random_network(), replace(card(), network={"kind": "magic"}), saved)
    with pytest.raises(InputError, match=r"small\.safetensors.*'magic'"):
        load_prior(saved)


def test_unwritable_folder(tmp_path):
    with pytest.raises(EngineError, match=r"nowhere"):
        save_prior(random_network(), card(), tmp_path / "nowhere" / "a.safetensors")


# --- sub-batches


class Hungry:
    """A prior that has memory for so many slices at a time and fails as CUDA or the CPU's allocator would."""

    sigma_min, sigma_max, card = 0.002, 80.0, card()

    def __init__(self, limit: int, error: Exception) -> None:
        self.limit, self.error = limit, error
        self.calls: list[int] = []

    def denoise(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        self.calls.append(len(x))
        if len(x) > self.limit:
            raise self.error
        return x * 0.5


NO_MEMORY = [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]


@pytest.mark.parametrize("error", NO_MEMORY, ids=["cuda", "cpu"])
def test_sub_batches_shrink_until_they_fit(error):
    prior, x = Hungry(3, error), torch.rand(10, 4, 5)
    denoise = SliceDenoiser(prior, 8)
    assert torch.equal(denoise(x, 0.1), x * 0.5)
    assert prior.calls == [8, 4, 2, 2, 2, 2, 2]
    assert denoise.slices_per_batch == 2
    assert denoise.counter.evaluations == 1


def test_sub_batches_give_up_or_pass_errors_on():
    with pytest.raises(EngineError, match="one slice of 4 x 5"):
        SliceDenoiser(Hungry(0, NO_MEMORY[0]), 4)(torch.rand(3, 4, 5), 0.1)
    with pytest.raises(RuntimeError, match="shape"):
        SliceDenoiser(Hungry(0, RuntimeError("shape mismatch")), 4)(torch.rand(3, 4, 5), 0.1)


def test_sub_batch_size_does_not_change_the_result():
    prior = exact_prior()
    x = torch.rand(7, 9, 16).transpose(1, 2)
    results = [SliceDenoiser(prior, n)(x, 0.2) for n in (1, 3, 100)]
    assert results[0].shape == x.shape
    for other in results[1:]:
        assert torch.allclose(results[0], other, atol=1e-5)
