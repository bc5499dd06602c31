"""The ADM U-Net: recorded outputs and layouts of the published networks, and the same from a plain implementation."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.priors.adm import ADMConfig, ADMUNet, infer_config, step_features
from DiffusionMBIRLib.priors.unet import group_norm_silu_, on_meta
from Testing.engine.memory import LiveBytes
from Testing.engine.plain_networks import PlainADM
from Testing.engine.vectors import arrays, checkpoint, error, layout, meta_tensors, recorded, shapes, with_numbers

TINY = ADMConfig(width=32, multipliers=(1, 1, 2), attention_levels=(1,), head_channels=16)
VARIANTS = {
    "published": TINY,
    "complex": replace(TINY, image_channels=2, attention_levels=()),
    "new order": replace(TINY, new_attention_order=True, attention_levels=(0, 2)),
    "heads by number": replace(TINY, head_channels=0, heads=4),
    "noise only": replace(TINY, learned_variance=False, blocks=2),
    "one level": replace(TINY, multipliers=(1,), attention_levels=(), blocks=2),
    "two blocks": replace(TINY, multipliers=(2, 1), attention_levels=(0, 1), blocks=2),
}
LAYOUTS = {
    "dds_AAPM256": ADMConfig(),
    "dds_fastmri_knee_320_complex": ADMConfig(image_channels=2, attention_levels=()),
}


def tiny(config: ADMConfig = TINY) -> ADMUNet:
    torch.manual_seed(0)
    return with_numbers(ADMUNet(config))


def noisy(config: ADMConfig, rows: int = 8, columns: int = 12, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(batch, config.image_channels, rows, columns, generator=torch.Generator().manual_seed(1))
    return x, torch.tensor([999.0, 12.25, 0.0])[:batch]


# --- the network against the plain implementation


@pytest.mark.parametrize("name", VARIANTS)
@torch.inference_mode()
def test_network_matches_the_plain_one(name):
    network = tiny(VARIANTS[name])
    x, step = noisy(network.config)
    noise = network(x, step)
    assert noise.shape == (2, network.config.output_channels, 8, 12)
    assert noise.dtype == x.dtype
    assert error(noise, PlainADM(network.config, network.state_dict())(x, step)) < 1e-5


@torch.inference_mode()
def test_slices_do_not_see_each_other():
    network = tiny()
    x, step = noisy(TINY, batch=3)
    alone = torch.cat([network(x[i : i + 1], step[i : i + 1]) for i in range(3)])
    assert error(network(x, step), alone) < 1e-5


@torch.inference_mode()
def test_channels_last_gives_the_same():
    network = tiny()
    x, step = noisy(TINY)
    expected = network(x, step)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert error(network(x.contiguous(memory_format=torch.channels_last), step), expected) < 1e-5


@torch.inference_mode()
def test_reduced_precision_stays_close():
    network = tiny()
    x, step = noisy(TINY)
    expected = network(x, step)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = network(x, step)
    assert mixed.dtype == torch.float32
    assert error(mixed, expected) < 0.03
    network.to(torch.bfloat16)
    assert error(network(x, step), expected) < 0.03


def test_every_weight_learns():
    network = tiny().train()
    x, step = noisy(TINY)
    network(x, step).square().mean().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in network.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_memory_is_four_maps(precision):
    """Of full resolution: in the last blocks a joined one, its skip and the first convolution's result."""
    network = tiny(replace(TINY, attention_levels=()))
    x, step = noisy(TINY, rows=96, columns=64, batch=1)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    live = LiveBytes(x, step, *network.parameters())
    with torch.autocast("cpu", torch.bfloat16, enabled=precision != torch.float32), live:
        network(x, step)
    assert live.peak / (x.numel() * TINY.width * precision.itemsize) < 4.3


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_norm_in_place_is_the_plain_one(precision, layout):
    x = torch.randn(2, 64, 6, 5, generator=torch.Generator().manual_seed(1)).to(precision, memory_format=layout)
    norm = with_numbers(torch.nn.GroupNorm(32, 64)).to(precision)
    expected = torch.nn.functional.silu(norm(x)).detach()
    before = x.clone()
    assert torch.equal(group_norm_silu_(x, norm).detach(), expected)
    assert torch.equal(x, before)  # gradients need it
    with torch.no_grad():
        assert group_norm_silu_(x, norm) is x
    assert error(x, expected) < (1e-6 if precision == torch.float32 else 0.01)


def test_step_features():
    features = step_features(torch.tensor([0.0, 2.0]), 4)
    assert torch.allclose(features[0], torch.tensor([1.0, 1.0, 0.0, 0.0]))
    phase = torch.tensor([2.0, 0.02])
    assert torch.allclose(features[1], torch.cat([phase.cos(), phase.sin()]))


@pytest.mark.parametrize("shape", [(1, 1, 10, 16), (1, 1, 16, 18), (1, 2, 16, 16), (1, 16, 16)])
def test_unfit_images_are_refused(shape):
    with pytest.raises(InputError, match="multiples of 4"):
        tiny()(torch.zeros(shape), torch.ones(1))


# --- configurations


@pytest.mark.parametrize("name", VARIANTS)
def test_configuration_is_read_from_the_weights(name):
    config = VARIANTS[name]
    state = on_meta(ADMUNet, config).state_dict()
    expected = replace(config, heads=ADMConfig.heads, new_attention_order=False, dropout=0.0)
    assert infer_config(state, head_channels=config.head_channels) == expected
    assert ADMConfig.from_dict(config.to_dict()) == config


def test_foreign_weights_are_refused():
    state = dict(tiny().state_dict())
    for wrong in (
        {},
        {k: v for k, v in state.items() if "emb_layers.1.bias" not in k},
        {k: v for k, v in state.items() if not k.startswith("output_blocks.")},
        {**state, "middle_block.0.in_layers.2.weight": torch.zeros(3, 3)},
        {**state, "label_emb.weight": torch.zeros(1)},
    ):
        with pytest.raises(InputError, match="weights"):
            infer_config(wrong, head_channels=16)


@pytest.mark.parametrize(
    "change",
    [
        {"width": 0}, {"width": 40}, {"multipliers": ()}, {"multipliers": 3}, {"blocks": 1.5}, {"head_channels": 24},
        {"heads": 5, "head_channels": 0}, {"attention_levels": (3,)}, {"dropout": 1.0}, {"kind": "ncsnpp"},
    ],
)  # fmt: skip
def test_unfit_configurations_are_refused(change):
    with pytest.raises(InputError, match="adm"):
        ADMConfig.from_dict({**TINY.to_dict(), **change})


# --- the published networks


@recorded
@pytest.mark.parametrize("name", LAYOUTS)
def test_layout_is_the_published_one(name):
    published = layout(name)["model"]
    network = on_meta(ADMUNet, LAYOUTS[name])
    assert shapes(network.state_dict()) == {k: (shape, dtype) for k, shape, dtype in published}
    assert [k for k, _ in network.named_parameters()] == [k for k, _, _ in published]
    assert infer_config(meta_tensors(published)) == LAYOUTS[name]


@recorded
@pytest.mark.parametrize("part", ["main", "ends"])
@torch.inference_mode()
def test_noise_matches_the_recording(part):
    weights, a = checkpoint("dds_tiny_img64.pt"), arrays("dds_tiny_img64")
    network = ADMUNet(infer_config(weights, head_channels=32)).eval()
    network.load_state_dict(weights)
    assert error(network(a[f"x_{part}"], a[f"t_{part}"]), a[f"out_{part}"]) < 5e-6  # 9e-7 measured
    assert torch.allclose(step_features(a["t_main"], 32), a["temb_main"], atol=1e-6)
