"""NCSN++: recorded outputs and layouts of the published networks, and the same from a plain implementation."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.priors.fir import fir_convolve_down, fir_down, fir_kernel, fir_up
from DiffusionMBIRLib.priors.ncsnpp import FourierFeatures, NCSNpp, NCSNppConfig, infer_config, positional_features
from DiffusionMBIRLib.priors.unet import on_meta
from Testing.engine.memory import LiveBytes
from Testing.engine.plain_networks import PlainNCSNpp, fir
from Testing.engine.vectors import arrays, checkpoint, error, layout, meta_tensors, recorded, shapes, with_numbers

TINY = NCSNppConfig(width=8, multipliers=(1, 2, 2), blocks=1, attention_levels=(1,))
VARIANTS = {
    "published": TINY,
    "no attention": replace(TINY, attention_levels=()),
    "complex": replace(TINY, image_channels=2, attention_levels=(0, 2)),
    "positional": replace(TINY, embedding="positional", sigma_max=50.0, scales=232),
    "no pyramid": replace(TINY, progressive_input="none", blocks=2),
    "no rescaling": replace(TINY, skip_rescale=False, attention_levels=(0, 1, 2)),
    "centered": replace(TINY, centered=True, scale_by_sigma=False),
    "other filter": replace(TINY, fir=(1, 1), multipliers=(2, 1)),
    "long filter": replace(TINY, fir=(1, 5, 10, 10, 5, 1), attention_levels=()),
    "one level": replace(TINY, multipliers=(2,), attention_levels=(0,), blocks=2),
}
LAYOUTS = {
    "AAPM_256_ncsnpp_continuous": NCSNppConfig(),
    "fastmri_knee_320_ncsnpp_continuous": NCSNppConfig(),
    "fastmri_knee_320_ncsnpp_continuous_complex": NCSNppConfig(image_channels=2),
}
RECORDED = [
    (name, weights, part)
    for name, parts in (("img64", ("main", "lohi")), ("img256layout", ("main", "lohi")), ("complex2ch", ("main",)))
    for weights in ("raw", "ema")
    for part in parts
]


def tiny(config: NCSNppConfig = TINY) -> NCSNpp:
    torch.manual_seed(0)
    return with_numbers(NCSNpp(config))


def noisy(config: NCSNppConfig, rows: int = 16, columns: int = 24, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(batch, config.image_channels, rows, columns, generator=torch.Generator().manual_seed(1))
    sigma = torch.tensor([0.05, 20.0, 1.5])[:batch]
    return 0.5 + x * sigma[:, None, None, None], sigma


# --- the filters


@pytest.mark.parametrize("taps", [(1, 3, 3, 1), (1, 1), (1, 5, 10, 10, 5, 1)])
def test_filters_are_zero_insertion_and_convolution(taps):
    x = torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    weight, bias = torch.randn(5, 3, 3, 3), torch.randn(5)
    kernel = fir_kernel(taps)
    assert torch.allclose(fir_down(x, kernel), fir(x, taps, down=2), atol=1e-6)
    assert torch.allclose(fir_up(x, kernel), fir(x, taps, up=2), atol=1e-6)
    smooth = fir(x, taps, window=3)
    assert torch.allclose(
        fir_convolve_down(x, kernel, weight, bias), F.conv2d(smooth, weight, bias, stride=2), atol=1e-4
    )


def test_filters_keep_constants_inside():
    x, kernel = torch.ones(1, 1, 8, 8), fir_kernel((1, 3, 3, 1))
    assert torch.allclose(fir_down(x, kernel)[..., 1:-1, 1:-1], torch.ones(2, 2))
    assert torch.allclose(fir_up(x, kernel)[..., 1:-1, 1:-1], torch.ones(14, 14))


@pytest.mark.parametrize("taps", [(), (1, 2, 1), (1, 2), (1, -1, -1, 1)])
def test_unfit_filters_are_refused(taps):
    with pytest.raises(InputError, match="symmetric"):
        fir_kernel(taps)


@recorded
def test_filters_match_the_recording():
    a = arrays("fir_ops")
    kernel = fir_kernel(a["k"].tolist())
    assert torch.allclose(fir_up(a["x"], kernel), a["up2"], atol=1e-6)
    assert torch.allclose(fir_down(a["x"], kernel), a["down2"], atol=1e-6)
    assert torch.allclose(fir_convolve_down(a["x"], kernel, a["w"], None), a["conv_down2"], atol=1e-5)


# --- the network against the plain implementation


@pytest.mark.parametrize("name", VARIANTS)
@torch.inference_mode()
def test_network_matches_the_plain_one(name):
    network = tiny(VARIANTS[name])
    x, sigma = noisy(network.config)
    score = network(x, sigma)
    assert score.shape == x.shape
    assert score.dtype == x.dtype
    assert error(score, PlainNCSNpp(network.config, network.state_dict())(x, sigma)) < 1e-5


@torch.inference_mode()
def test_attention_goes_by_level_at_every_size():
    network = tiny()
    for rows, columns in ((8, 32), (16, 16), (32, 20)):
        x, sigma = noisy(TINY, rows, columns)
        assert error(network(x, sigma), PlainNCSNpp(TINY, network.state_dict())(x, sigma)) < 1e-5


@torch.inference_mode()
def test_slices_do_not_see_each_other():
    network = tiny()
    x, sigma = noisy(TINY, batch=3)
    alone = torch.cat([network(x[i : i + 1], sigma[i : i + 1]) for i in range(3)])
    assert error(network(x, sigma), alone) < 1e-5


@torch.inference_mode()
def test_channels_last_gives_the_same():
    network = tiny()
    x, sigma = noisy(TINY)
    expected = network(x, sigma)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert error(network(x.contiguous(memory_format=torch.channels_last), sigma), expected) < 1e-5


@pytest.mark.parametrize("embedding", ["fourier", "positional"])
@torch.inference_mode()
def test_reduced_precision_stays_close(embedding):
    network = tiny(replace(TINY, embedding=embedding))
    x, sigma = noisy(TINY)
    expected = network(x, sigma)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = network(x, sigma)
    assert mixed.dtype == torch.float32
    assert error(mixed, expected) < 0.03
    network.to(torch.bfloat16)
    assert error(network(x, sigma), expected) < 0.03


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_memory_is_what_the_decoder_awaits_and_one_block(precision):
    """The block that enlarges works at twice the width: its skip, a convolution's input and result are six maps.

    Its input, not enlarged yet, is half a map; three await the decoder.
    """
    network = tiny(replace(TINY, attention_levels=(), blocks=2))
    x, sigma = noisy(TINY, rows=96, columns=64, batch=1)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    live = LiveBytes(x, sigma, *network.parameters())
    with torch.autocast("cpu", torch.bfloat16, enabled=precision != torch.float32), live:
        network(x, sigma)
    assert live.peak / (x.numel() * TINY.width * precision.itemsize) < 9.9


def test_frequencies_keep_float32():
    features = FourierFeatures(8)
    frequencies = features.W.clone()
    features.half().float()
    assert torch.equal(features.W, frequencies)
    assert features.double().W.dtype == torch.float32
    assert features.to("meta").W.is_meta


def test_every_weight_learns():
    network = tiny().train()
    x, sigma = noisy(TINY)
    network(x, sigma).square().mean().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in network.parameters())


def test_positions_are_steps_of_the_geometric_sequence():
    config = replace(TINY, embedding="positional")
    sigmas = torch.exp(torch.linspace(5.934894, -4.605170, config.scales, dtype=torch.float64))
    found = NCSNpp(config)._position(sigmas.float())
    assert torch.allclose(found, torch.arange(2000.0), atol=2e-2)
    features = positional_features(torch.tensor([0.0, 3.0]), 4)
    assert torch.allclose(features[0], torch.tensor([0.0, 0.0, 1.0, 1.0]))
    phase = torch.tensor([3.0, 3e-4])
    assert torch.allclose(features[1], torch.cat([phase.sin(), phase.cos()]))


@pytest.mark.parametrize("shape", [(1, 1, 10, 16), (1, 1, 16, 18), (1, 2, 16, 16), (1, 16, 16)])
def test_unfit_images_are_refused(shape):
    with pytest.raises(InputError, match="multiples of 4"):
        tiny()(torch.zeros(shape), torch.ones(1))


# --- configurations


@pytest.mark.parametrize("name", VARIANTS)
def test_configuration_is_read_from_the_weights(name):
    config = VARIANTS[name]
    unseen = ("fir", "skip_rescale", "scale_by_sigma", "centered", "sigma_min", "sigma_max", "scales", "dropout")
    expected = replace(config, **{field: getattr(NCSNppConfig, field) for field in unseen})
    assert infer_config(on_meta(NCSNpp, config).state_dict()) == expected
    assert NCSNppConfig.from_dict(config.to_dict()) == config


def test_foreign_weights_are_refused():
    state = dict(tiny().state_dict())
    for wrong in (
        {},
        {"weight": torch.zeros(3)},
        {k: v for k, v in state.items() if "Dense_0.bias" not in k},
        {k: v for k, v in state.items() if not k.startswith("all_modules.3.")},
        {**state, "all_modules.4.Conv_1.weight": torch.zeros(3, 3)},
        {**state, "extra": torch.zeros(1)},
    ):
        with pytest.raises(InputError, match="weights"):
            infer_config(wrong)


@pytest.mark.parametrize(
    "change",
    [
        {"width": 0}, {"width": 7}, {"multipliers": ()}, {"multipliers": 3}, {"blocks": 1.5}, {"embedding": "none"},
        {"progressive_input": "sum"}, {"attention_levels": (3,)}, {"dropout": 1.0}, {"fir": [1, 2]}, {"scales": 1},
        {"sigma_min": 400.0}, {"kind": "adm"}, {"dropout": "much"},
    ],
)  # fmt: skip
def test_unfit_configurations_are_refused(change):
    with pytest.raises(InputError, match="ncsnpp|FIR"):
        NCSNppConfig.from_dict({**TINY.to_dict(), **change})


def test_widths_that_groups_do_not_divide_are_refused():
    with pytest.raises(InputError, match="groups"):
        NCSNpp(replace(TINY, width=134))


# --- the published networks


@recorded
@pytest.mark.parametrize("name", LAYOUTS)
def test_layout_is_the_published_one(name):
    published = layout(name)
    network = on_meta(NCSNpp, LAYOUTS[name])
    bare = {k.removeprefix("module."): (shape, dtype) for k, shape, dtype in published["model"]}
    del bare["sigmas"]
    assert shapes(network.state_dict()) == bare
    assert [f"module.{k}" for k, _ in network.named_parameters()] == published["ema_shadow_params_order"]
    assert sum(t.numel() for t in network.state_dict().values()) == published["params"]
    weights = {
        k.removeprefix("module."): v for k, v in meta_tensors(published["model"]).items() if k != "module.sigmas"
    }
    assert infer_config(weights) == LAYOUTS[name]


@recorded
@pytest.mark.parametrize(("name", "which", "part"), RECORDED)
@torch.inference_mode()
def test_scores_match_the_recording(name, which, part):
    file, a = checkpoint(f"ncsnpp_tiny_{name}.pth"), arrays(f"ncsnpp_tiny_{name}")
    weights = {k.removeprefix("module."): v for k, v in file["model"].items() if k != "module.sigmas"}
    network = NCSNpp(infer_config(weights)).eval()
    network.load_state_dict(weights)
    if which == "ema":
        names = [k for k, _ in network.named_parameters()]
        network.load_state_dict(weights | dict(zip(names, file["ema"]["shadow_params"], strict=True)))
    score = network(a[f"x_{part}"], a[f"sigma_{part}"])
    assert error(score, a[f"score_{which}_{part}"]) < 5e-6  # 1.4e-6 measured
    features = network.all_modules[0](a["sigma_main"].log())
    assert torch.allclose(features, a["temb_fourier_main"], atol=1e-6)
