"""Supervised baselines of MRI: networks, data steps, training, and clear words on what is wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.benchmark.plan import mri
from DiffusionMBIRLib.benchmark.run import Subject, run_benchmark
from DiffusionMBIRLib.cli import main
from DiffusionMBIRLib.config import ReconSettings
from DiffusionMBIRLib.errors import Cancelled, InputError
from DiffusionMBIRLib.estimate import evaluations
from DiffusionMBIRLib.models import MR_VALUE, ModelCard, read_card
from DiffusionMBIRLib.monitor import Silent
from DiffusionMBIRLib.operators import CartesianFourier, SenseFourier
from DiffusionMBIRLib.operators.fourier import fft2c
from DiffusionMBIRLib.priors.checkpoints import save_prior
from DiffusionMBIRLib.problems.mr import with_maps
from DiffusionMBIRLib.supervised.about import network_name
from DiffusionMBIRLib.supervised.dense import DenseNetwork, KSpaceDenseNetwork
from DiffusionMBIRLib.supervised.kspace_scans import KSpaceProtocol, scanned
from DiffusionMBIRLib.supervised.kspace_training import KSpaceTrainer
from DiffusionMBIRLib.supervised.methods import SupervisedNetwork
from DiffusionMBIRLib.supervised.networks import StagedNetwork, SupervisedConfig
from DiffusionMBIRLib.supervised.two_domains import onto_data, parts, whole
from DiffusionMBIRLib.tasks import MR_TASK
from DiffusionMBIRLib.training.settings import TrainSettings
from DiffusionMBIRLib.training.stacks import Stack
from Testing.engine.helpers import body

KINDS = ("unet", "dudornet")
SMALL = {"unet": {"widths": (8, 12), "blocks": 1}, "dudornet": {"widths": (8,), "blocks": 1, "recurrences": 2}}


def untrained(kind: str, **sizes) -> StagedNetwork:
    torch.manual_seed(0)
    return StagedNetwork(SupervisedConfig(kind, MR_TASK, **(SMALL[kind] | sizes)))


def write(folder: Path, kind: str, *, random: bool = True, **sizes) -> Path:
    made = untrained(kind, **sizes)
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(0.05 * torch.randn(weight.shape) if random else 0.0)
        if not random and kind == "unet":
            made.get_parameter("stages.0.unet.head.bias").zero_()
    path = folder / f"{network_name(kind, MR_TASK)}.safetensors"
    card = ModelCard(id="tiny", modality="MR", channels=2, value=MR_VALUE, network=made.config.to_dict())
    save_prior(made, card, path)
    return path


def head(shape=(2, 32, 32)):
    volume = body(shape)
    return replace(volume, array=np.abs(volume.array) + np.float32(0.1), unit="")


def scan(coils: int = 1, **options):
    return with_maps(mbir.simulate(head(), task=MR_TASK, coils=coils, acceleration=3.0, acs=0.3, **options))


def reconstructed(measured, path: Path, **settings):
    chosen = ReconSettings(prior=str(path), precision="float32", start="admm-tv", **settings)
    return mbir.reconstruct(measured, settings=chosen)


# --- networks


@pytest.mark.parametrize("kind", KINDS)
def test_an_untrained_network_leaves_the_zero_filled_image(kind, tmp_path):
    path = write(tmp_path, kind, random=False)
    for coils in (1, 4) if kind == "unet" else (1,):
        measured = scan(coils)
        found = reconstructed(measured, path, method=kind).volume.array
        zero_filled = reconstructed(measured, path, method="zero-filled").volume.array
        np.testing.assert_allclose(found, zero_filled, atol=1e-4 * zero_filled.max())


def test_dudornet_ends_on_the_data_whatever_its_networks_made(tmp_path):
    path = write(tmp_path, "dudornet")
    measured = scan()
    assert reconstructed(measured, path, method="dudornet").residual < 1e-5
    other = reconstructed(measured, path, method="dudornet").volume.array
    zero_filled = reconstructed(measured, path, method="zero-filled").volume.array
    assert np.abs(other - zero_filled).max() > 0.01 * zero_filled.max()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("coils", [1, 4])
def test_a_run_counts_its_evaluations_and_the_sub_batch_changes_nothing(kind, coils, tmp_path):
    path, measured = write(tmp_path, kind), scan(coils, noise=0.01, phase=True)
    whole_run = reconstructed(measured, path, method=kind)
    single = reconstructed(measured, path, method=kind, slices_per_batch=1)
    assert whole_run.nfe == (1 if kind == "unet" else 4)
    assert whole_run.volume.grid == head().grid
    np.testing.assert_allclose(single.volume.array, whole_run.volume.array, atol=1e-4 * whole_run.volume.array.max())


def test_the_network_of_k_space_sees_all_of_it_alike_and_centred():
    """In k-space that falls as its emphasis rises, what is added must not depend on where it is."""
    torch.manual_seed(1)
    made = KSpaceDenseNetwork(2, 8, 1, 2)
    plain = DenseNetwork(2, 8, 1, 2)
    torch.nn.init.normal_(made.last.weight)
    plain.load_state_dict(made.state_dict())
    rows, columns = 24, 20
    r, c = np.meshgrid((np.arange(rows) - 12) / rows, (np.arange(columns) - 10) / columns, indexing="ij")
    emphasis = torch.from_numpy(1 / np.sqrt(rows * columns) + np.hypot(r, c)).float()
    x = torch.randn(1, 2, rows, columns)
    told = torch.zeros(1)
    torch.testing.assert_close(made(x / emphasis, told) * emphasis, plain(x, told), atol=1e-5, rtol=1e-5)


def test_published_blocks_and_sizes():
    config = SupervisedConfig("dudornet", MR_TASK)
    assert (config.recurrences, config.widths, config.blocks, config.stages) == (5, (32,), 3, 2)
    assert config == SupervisedConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    made = StagedNetwork(config)
    first, last = made.get_submodule("stages.0.blocks.0.layers"), made.get_submodule("stages.1.blocks.2.layers")
    assert [layer.dilation[0] for layer in first.children()] == [1, 2, 4, 4]  # type: ignore[index]
    assert [layer.in_channels for layer in last.children()] == [32, 64, 96, 128]
    assert 2 * sum(weight.numel() for weight in made.parameters()) < 2.4e6


# --- scans of training


@pytest.mark.parametrize("coils", [1, 4])
def test_batches_are_seen_as_reconstructions_see_scans(coils):
    """The same scans through the operators of reconstructions."""
    generator = np.random.default_rng(0)
    images = [torch.rand(32, 32) for _ in range(3)]
    protocols = [KSpaceProtocol(2 + k, 0.15, noise=0.01 * k) for k in range(3)]
    scans = scanned(images, protocols, coils, generator)
    x = torch.randn_like(scans.truth)
    for k in range(3):
        mask, y = scans.mask[k, 0].numpy(), scans.y[k : k + 1]
        A = SenseFourier(mask, scans.maps[None]) if coils > 1 else CartesianFourier(mask, (1, 32, 32))
        torch.testing.assert_close(scans.adjoint(scans.y)[k : k + 1], A.adjoint(y))
        torch.testing.assert_close(scans.onto_data(x)[k : k + 1], onto_data(A, y)(x[k : k + 1]), atol=1e-5, rtol=1e-5)
        assert float(scans.condition[k]) == pytest.approx(-np.log(mask.mean()), rel=1e-5)
    assert float((scans.y - scans.mask * fft2c(scans.truth[:, None] * scans.maps))[0].abs().max()) < 1e-5  # no noise
    assert 0.015 < float((scans.y - scans.mask * fft2c(scans.truth[:, None] * scans.maps))[2].real.std() * 2) < 0.03


def test_samples_of_one_coil_are_replaced():
    generator = np.random.default_rng(0)
    scans = scanned([torch.rand(32, 32)], [KSpaceProtocol(3, 0.15)], 1, generator)
    fitted = fft2c(scans.onto_data(torch.randn_like(scans.truth)))[:, None]
    torch.testing.assert_close(fitted * scans.mask, scans.y, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(whole(parts(scans.truth)), scans.truth)


@pytest.mark.parametrize("coils", [1, 4])
def test_a_window_of_rows_is_what_these_rows_are_in_the_whole_scan(coils):
    images, protocols = [torch.rand(32, 32)], [KSpaceProtocol(3, 0.15, mask="equispaced")]
    window = scanned(images, protocols, coils, np.random.default_rng(3), rows=8)
    top = int(np.random.default_rng(3).integers(32 - 8 + 1))
    rows = slice(top, top + 8)
    mask, maps = window.mask[0, 0, :1].expand(32, 32).numpy(), torch.zeros(coils, 32, 32, dtype=torch.complex64)
    object_, maps[:, rows] = torch.zeros(1, 32, 32, dtype=torch.complex64), window.maps
    object_[0, rows] = window.truth[0]
    maps[:, :top], maps[:, top + 8 :] = coils**-0.5, coils**-0.5
    A = SenseFourier(mask, maps[None]) if coils > 1 else CartesianFourier(mask, (1, 32, 32))
    zero_filled = A.adjoint(A.forward(object_))[0]
    torch.testing.assert_close(window.adjoint(window.y)[0], zero_filled[rows], atol=1e-5, rtol=1e-5)
    outside = zero_filled.clone()
    outside[rows] = 0
    assert float(outside.abs().max()) < 1e-5


# --- training


def stack(patient: str, seed: int, size: int = 48) -> Stack:
    generator = np.random.default_rng(seed)
    r, c = np.mgrid[:size, :size] - (size - 1) / 2
    slices = []
    for _ in range(6):
        image = np.where(np.hypot(r / generator.uniform(0.5, 0.9), c) < 0.42 * size, 0.5, 0.0)
        for _ in range(4):
            place = np.hypot(r - generator.uniform(-8, 8), c - generator.uniform(-8, 8))
            image[place < generator.uniform(2, 5)] = generator.uniform(0.1, 1.0)
        slices.append(image)
    full = torch.from_numpy(np.array(slices, np.float32))
    half = torch.nn.functional.avg_pool2d(full[:, None], 2)[:, 0]
    return Stack(patient, f"{patient}.nrrd", 1.0, [full.half(), half.half()])


STACKS = [stack(f"p{k}", k) for k in range(3)]
SETTINGS = TrainSettings(images=96, batch=4, size=32, warmup_images=8, learning_rate=3e-3, ema=0.9)


def trainer(folder: Path, kind: str, settings=SETTINGS, monitor=None) -> KSpaceTrainer:
    folder.mkdir(exist_ok=True)
    return KSpaceTrainer(
        STACKS,
        folder,
        network=SupervisedConfig(kind, MR_TASK, **SMALL[kind]),
        settings=settings,
        model_id="tiny",
        device=torch.device("cpu"),
        monitor=monitor,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_steps_see_whole_images_and_windows_of_as_many_pixels(kind, tmp_path):
    learner = trainer(tmp_path / kind, kind, replace(SETTINGS, size=64))
    shapes = [tuple(truth.shape) for truth, *_ in learner.batches(range(48))]
    assert {shape[-1] for shape in shapes} == {48, 64, 96, 128, 160}
    for count, rows, columns in shapes:
        assert 0.6 < count * rows * columns / (4 * 64**2) < 1.4
        assert rows % learner.config.multiple == 0


def test_a_training_begins_with_few_blocks_and_ends_with_all(tmp_path):
    config = SupervisedConfig("dudornet", MR_TASK, widths=(8,), blocks=1, recurrences=3)
    (tmp_path / "t").mkdir()
    options = {"model_id": "tiny", "device": torch.device("cpu")}
    learner = KSpaceTrainer(STACKS, tmp_path / "t", network=config, settings=SETTINGS, **options)
    batch = next(iter(learner.batches(range(1))))
    ran = []
    for part in learner.network.stages:
        part.register_forward_hook(lambda *_: ran.append(1))
    for seen, blocks in ((0, 2), (48, 3)):
        learner.seen, ran[:] = seen, []
        learner.loss(0, *batch)
        assert len(ran) == 2 * blocks


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_can_be_learnt_and_the_card_tells_what_is_left(kind, tmp_path):
    path = trainer(tmp_path / kind, kind, replace(SETTINGS, images=4)).run()
    left = read_card(path).training["error_left_of_zero_filled"]
    assert set(left) == {"x2, 1 coil", "x4, 1 coil", "x4, 8 coils, 1 % noise"}
    learner = trainer(tmp_path / "again", kind, replace(SETTINGS, images=10_000))
    batch = next(iter(learner.batches(range(1))))
    losses = []
    for _ in range({"unet": 80, "dudornet": 40}[kind]):
        learner.seen += 4
        losses.append(float(learner._step(0, *batch)))
    assert losses[-1] < {"unet": 0.4, "dudornet": 0.95}[kind] * losses[0]
    for name, weight in learner.network.named_parameters():  # of both domains
        assert weight.grad is not None, name
        assert float(weight.grad.abs().max()) > 0, name


def test_a_stopped_run_ends_as_one_that_was_not(tmp_path):
    class Stops(Silent):
        def tick(self, stage, done, total, **metrics):
            if stage == "train" and done >= 40:
                raise Cancelled

    settings = replace(SETTINGS, images=120)
    whole_run = trainer(tmp_path / "whole", "dudornet", settings)
    whole_run.run()
    with pytest.raises(Cancelled):
        trainer(tmp_path / "parts", "dudornet", settings, Stops()).run()
    resumed = trainer(tmp_path / "parts", "dudornet", settings)
    assert 0 < resumed.seen < 120
    resumed.run()
    for name, weight in whole_run.ema.state_dict().items():
        assert torch.equal(weight, resumed.ema.state_dict()[name]), name


def test_the_command_trains_and_reconstructs(tmp_path, capsys):
    for k in range(2):
        volume = head((16, 24, 24))
        volume.save(tmp_path / f"mr_p{k}_T1.nrrd")
    sizes = ["--images", "8", "--batch", "4", "--size", "32", "--widths", "8", "--blocks", "1"]
    given = ["train", str(tmp_path), "--method", "dudornet", "-o", str(tmp_path / "out"), *sizes]
    assert main(given) == 0
    assert "error left of zero filled" in capsys.readouterr().out.replace("_", " ")
    made = tmp_path / "out" / "dudornet-mri.safetensors"
    measured = scan(4)
    assert np.isfinite(reconstructed(measured, made, method="dudornet").volume.array).all()


# --- what is wrong, and the benchmark


def test_trajectories_and_foreign_networks_are_refused(tmp_path):
    path = write(tmp_path, "unet")
    radial = mbir.simulate(head((2, 32, 32)), task=MR_TASK, trajectory="radial", spokes=16)
    with pytest.raises(InputError, match="trained for Cartesian k-space"):
        reconstructed(radial, path, method="unet")
    with pytest.raises(InputError, match="network of unet; method dudornet needs"):
        reconstructed(scan(), path, method="dudornet")
    with pytest.raises(InputError, match="serves the task compressed-sensing-mri"):
        SupervisedConfig("unet", "sparse-view-ct")
    with pytest.raises(InputError, match="recurrences"):
        SupervisedConfig("dudornet", MR_TASK, recurrences=1000)
    with pytest.raises(InputError, match="multiple of 16"):
        trainer(tmp_path / "odd", "unet", replace(SETTINGS, size=36))


def test_rows_of_the_table(tmp_path):
    write(tmp_path, "unet")
    write(tmp_path, "dudornet", recurrences=5)
    head().save(tmp_path / "head.nrrd")
    records = run_benchmark(
        [Subject("head", tmp_path / "head.nrrd")],
        (mri(4, 0.2, 1),),
        tmp_path / "out",
        methods=("Zero-filled", "U-Net", "DuDoRNet"),
        supervised=tmp_path,
        device="cpu",
    )
    assert [r["method"] for r in records] == ["Zero-filled", "U-Net", "DuDoRNet"]
    counted = [evaluations(ReconSettings(method=kind), MR_TASK) for kind in KINDS]
    assert [r["nfe"] for r in records] == [0, *counted] == [0, 1, 10]


def test_one_that_is_open_already_serves():
    made = untrained("unet")
    card = ModelCard(id="open", modality="MR", channels=2, value=MR_VALUE, network=made.config.to_dict())
    network = SupervisedNetwork(made, card)
    result = mbir.reconstruct(scan(), prior=network, settings=ReconSettings(method="unet", start="admm-tv"))
    assert result.provenance["prior"]["id"] == "open"
