"""Where things are computed and in which precision: the choices, what follows from them, and refusals."""

from __future__ import annotations

import copy
import itertools
import json
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib import devices
from DiffusionMBIRLib.config import ReconSettings
from DiffusionMBIRLib.devices import (
    arithmetic,
    choose_device,
    choose_precision,
    clearly_faster,
    device_text,
    is_device_failure,
    native_bfloat16,
    volume_device,
)
from DiffusionMBIRLib.errors import Cancelled, EngineError, InputError
from DiffusionMBIRLib.methods.diffusion import slices_per_batch
from DiffusionMBIRLib.models import ModelCard
from DiffusionMBIRLib.priors import networks
from DiffusionMBIRLib.priors.checkpoints import precision_of, save_prior
from DiffusionMBIRLib.priors.compact import CompactConfig, CompactUNet
from DiffusionMBIRLib.priors.networks import CompactPrior
from DiffusionMBIRLib.problems import build_problem
from DiffusionMBIRLib.training.loop import _device
from Testing.engine.helpers import body

CPU, CUDA, MPS = (torch.device(name) for name in ("cpu", "cuda", "mps"))
SMALL = CompactConfig(widths=(8, 8), blocks=1)
FAST = ReconSettings(steps=3, start_sweeps=5, device="cpu")


@pytest.fixture
def machine(monkeypatch):
    """Says that this machine has so many CUDA devices of a compute capability, an Apple GPU or certain units."""

    def has(*, cuda=0, capability=(9, 0), apple=False, units=None, kernels=True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: apple)
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: kernels)
        if units is not None:
            monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: units, raising=False)

    return has


def network_file(path, **card):
    torch.manual_seed(0)
    entries = {"id": "small", "modality": "CT", "sigma_max": 12.0, "network": SMALL.to_dict()} | card
    save_prior(with_a_head(), ModelCard(**entries), path)
    return path


def with_a_head():
    network = CompactUNet(SMALL)
    torch.nn.init.normal_(network.head.weight, std=0.1)  # zero at first, whatever the precision
    return network


# --- devices


def test_auto_takes_cuda_then_mps_then_the_cpu(machine):
    machine()
    assert choose_device("auto") == CPU
    machine(apple=True)
    assert choose_device("auto") == MPS
    machine(cuda=2, apple=True)
    assert choose_device("auto") == CUDA
    assert choose_device("cuda:1") == torch.device("cuda:1")
    assert choose_device("mps") == MPS


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("abacus", "device 'abacus' is not known; use auto, cpu, cuda, cuda:N or mps"),
        ("meta", "device 'meta' is not supported"),
        ("cuda", r"device 'cuda' is not there: 0 CUDA device\(s\) found; use --device auto"),
        ("mps", "device 'mps' is not there: torch finds no Apple GPU; use --device auto"),
    ],
)
def test_devices_that_are_unknown_or_gone_are_refused_in_one_line(machine, name, message):
    machine()
    for choose in (choose_device, _device):
        with pytest.raises(InputError, match=message) as caught:
            choose(name)
        assert "\n" not in str(caught.value)


def test_with_mps_only_networks_leave_the_cpu():
    assert volume_device(MPS) == CPU
    assert volume_device(torch.device("cuda:1")) == torch.device("cuda:1")
    assert device_text(MPS) == "mps (networks; all else on cpu)"
    assert device_text(CPU) == "cpu"


def test_a_network_fetches_images_and_brings_results_back(monkeypatch):
    """On a device without values: what the network is handed and what becomes of its result is looked at."""
    monkeypatch.setattr(networks, "arithmetic", lambda device, precision: nullcontext())  # torch knows none there

    class Elsewhere(CompactPrior):
        fetched: list[tuple[str, torch.dtype]]

        @property
        def device(self):
            return torch.device("meta")

        def _estimate(self, x, sigma):
            self.fetched.append((x.device.type, x.dtype))
            return torch.zeros(x.shape)  # what comes from there

    prior = Elsewhere(with_a_head(), ModelCard(id="small", modality="CT"))
    prior.fetched = []
    assert prior.denoise(torch.rand(1, 1, 17, 15, dtype=torch.float64), 0.3).shape == (1, 1, 17, 15)
    assert prior.fetched == [("meta", torch.float32)]
    here = torch.empty((1, 1, 8, 8), device="meta")
    assert prior.denoise(here, 0.3).device == here.device


def test_a_problem_on_mps_has_its_operator_on_the_cpu(monkeypatch):
    scan, prior = mbir.simulate(body(), views=8), CompactPrior(with_a_head(), ModelCard(id="small", modality="CT"))
    monkeypatch.setattr(CompactPrior, "device", property(lambda self: MPS))
    problem = build_problem(scan, FAST, None, volume_device(MPS))
    assert problem.A.device == problem.y.device == CPU
    assert slices_per_batch(FAST, (32, 32), prior.device) == 2**20 // 32**2


# --- precision


@pytest.mark.parametrize(
    ("units", "native"),
    [
        ({"avx2": True, "avx512_f": True, "avx512_bf16": False, "amx_bf16": False, "amx_tile": False}, False),
        ({"avx512_f": True, "avx512_bf16": True, "amx_bf16": False, "amx_tile": False}, True),
        ({"avx512_bf16": False, "amx_bf16": True, "amx_tile": True}, True),
        ({"neon": True, "bf16": True}, True),
        ({"neon": True, "bf16": False}, False),
        ({"architecture": "riscv64"}, None),
        ({}, None),
    ],
)
@pytest.mark.parametrize("pays", [False, True])
def test_a_cpu_computes_in_bfloat16_where_it_has_units_for_it(machine, monkeypatch, units, native, pays):
    machine(units=units)
    monkeypatch.setattr(devices, "_bfloat16_pays", lambda: pays)  # the measurement counts where nothing else tells
    assert native_bfloat16() is native
    wanted = torch.bfloat16 if (pays if native is None else native) else torch.float32
    assert choose_precision("auto", CPU) == wanted
    assert choose_precision("auto", CPU, trained_in_float32=True) == torch.float32


def test_units_that_torch_does_not_use_do_not_count(machine):
    machine(units={"neon": True, "bf16": True}, kernels=False)
    assert choose_precision("auto", CPU) == torch.float32


def test_torch_without_capabilities_cannot_tell(machine, monkeypatch):
    machine()
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert native_bfloat16() is None


@pytest.mark.parametrize(("capability", "bf16"), [((9, 0), True), ((8, 0), True), ((7, 5), False), ((6, 1), False)])
def test_a_gpu_computes_in_bfloat16_from_compute_capability_8(machine, capability, bf16):
    machine(cuda=1, capability=capability)
    assert choose_precision("auto", CUDA) == (torch.bfloat16 if bf16 else torch.float32)
    assert choose_precision("auto", CUDA, trained_in_float32=True) == torch.float32


def test_mps_computes_in_float32(machine):
    machine(apple=True)
    assert choose_precision("auto", MPS) == torch.float32


@pytest.mark.parametrize(("one", "faster"), [(0.5, True), (0.85, True), (0.95, False), (2.0, False)])
def test_a_measurement_asks_for_a_clear_gain(one, faster):
    now, outliers = [0.0], itertools.cycle([9.0, 0.0, 0.3, 0.0])  # the first turn warms up, others may be disturbed

    def take(seconds):
        now[0] += seconds

    assert clearly_faster(lambda: take(one + next(outliers)), lambda: take(1.0), clock=lambda: now[0]) is faster


def test_the_measurement_draws_no_random_numbers_and_is_kept():
    devices._bfloat16_pays.cache_clear()
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    found = devices._bfloat16_pays()
    assert torch.equal(torch.rand(4), expected)
    assert devices._bfloat16_pays() is found
    assert devices._bfloat16_pays.cache_info().hits == 1


def test_precisions_have_torch_types_and_names():
    for name in ("float32", "bfloat16", "float16"):
        precision = getattr(torch, name)
        assert choose_precision(name, CPU) is choose_precision(precision, CPU) is precision
        with arithmetic(CPU, precision):
            assert torch.conv2d(torch.ones(1, 1, 4, 4), torch.ones(1, 1, 3, 3)).dtype == precision


@pytest.mark.parametrize("wanted", ["nonsense", "double", torch.float64, torch.int8])
def test_unknown_precisions_are_refused(wanted):
    with pytest.raises(InputError, match=r"precision '\w+' is not known; use one of auto, float32, bfloat16, float16"):
        choose_precision(wanted, CPU)


@pytest.mark.parametrize("how", ["raises", "goes on in float32"])
def test_a_precision_that_the_device_cannot_do_is_refused(monkeypatch, how):
    @contextmanager
    def autocast(kind, precision):
        if how == "raises":
            raise RuntimeError("Current CUDA Device does not support bfloat16.")
        yield

    monkeypatch.setattr(torch, "autocast", autocast)
    with pytest.raises(InputError, match="precision 'bfloat16' cannot be computed in on cpu; use auto or float32"):
        choose_precision("bfloat16", CPU)


# --- priors


def test_load_prior_takes_types_and_names(tmp_path, machine):
    machine(units={"avx512_bf16": True})
    path = network_file(tmp_path / "small.safetensors")
    assert mbir.load_prior(path).precision == torch.bfloat16
    assert mbir.load_prior(path, precision="float32").precision == torch.float32
    assert mbir.load_prior(path, precision=torch.float16).precision == torch.float16
    with pytest.raises(InputError, match=r"^precision 'half' is not known"):
        mbir.load_prior(path, precision="half")


@pytest.mark.parametrize("kind", ["ncsnpp", "adm"])
def test_published_networks_stay_in_float32(tmp_path, machine, kind):
    machine(units={"avx512_bf16": True})
    path = network_file(tmp_path / "theirs.safetensors", network={"kind": kind})
    assert precision_of(path, "auto", CPU) == torch.float32
    assert precision_of(path, "bfloat16", CPU) == torch.bfloat16
    bare = tmp_path / "bare.pth"
    torch.save({}, bare)
    assert precision_of(bare, "auto", CPU) == torch.float32


def test_a_run_records_the_setting_and_what_was_used(tmp_path, machine):
    machine(units={"avx512_bf16": True})
    path, scan = network_file(tmp_path / "small.safetensors"), mbir.simulate(body(), views=8)
    volumes = {}
    for setting, used in (("auto", "bfloat16"), ("float32", "float32"), ("bfloat16", "bfloat16")):
        settings = mbir.ReconSettings(**{**vars(FAST), "precision": setting})
        result = mbir.reconstruct(scan, prior=str(path), settings=settings)
        record = json.loads(result.volume.metadata["provenance"])
        assert (record["settings"]["precision"], record["precision"], record["device"]) == (setting, used, "cpu")
        volumes[setting] = result.volume.array
    np.testing.assert_array_equal(volumes["auto"], volumes["bfloat16"])
    assert 0 < np.abs(volumes["auto"] - volumes["float32"]).max() < 100
    classical = mbir.reconstruct(scan, settings=ReconSettings(method="fbp", device="cpu"))
    assert classical.provenance["precision"] == "float32"


def test_an_open_prior_keeps_its_precision_unless_told(machine):
    machine(units={"avx512_bf16": True})
    scan, prior = mbir.simulate(body(), views=8), CompactPrior(with_a_head(), ModelCard(id="small", modality="CT"))
    assert mbir.reconstruct(scan, prior=prior, settings=FAST).provenance["precision"] == "float32"
    told = mbir.reconstruct(scan, prior=prior, settings=FAST, precision="bfloat16")
    assert (told.provenance["precision"], told.provenance["settings"]["precision"]) == ("bfloat16", "auto")
    assert prior.precision == torch.float32


# --- a device that is lost


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (RuntimeError("CUDA error: device-side assert triggered\nCUDA kernel errors might be ..."), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), True),
        (RuntimeError("No CUDA GPUs are available"), True),
        (RuntimeError("shape '[3]' is invalid for input of size 4"), False),
        (Cancelled("CUDA error"), False),
        (ValueError("CUDA error"), False),
    ],
)
def test_a_lost_device_is_told_from_other_errors(error, lost):
    assert is_device_failure(error) is lost


def test_a_lost_device_ends_a_run_with_one_line(monkeypatch):
    class Lost(CompactPrior):
        def _estimate(self, x, sigma):
            raise RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with TORCH_USE_CUDA_DSA")

    prior = Lost(with_a_head(), ModelCard(id="small", modality="CT"))
    with pytest.raises(EngineError, match=r"device cpu failed \(CUDA error: an illegal .* try again, or --device cpu"):
        mbir.reconstruct(mbir.simulate(body(), views=8), prior=prior, settings=copy.copy(FAST))


# --- jobs


def job(tmp_path, machine, units, monkeypatch, sent, **settings):
    """A job's task as its worker makes it, on a processor with these units."""
    from DiffusionMBIRLib.jobs.asking import ask
    from DiffusionMBIRLib.jobs.folder import JobFolder
    from DiffusionMBIRLib.jobs.task import Task

    machine(units=units)
    found = list((tmp_path / "jobs").glob("2*"))
    if found:
        folder = JobFolder.open(found[0])
    else:
        volume, prior = body(), network_file(tmp_path / "small.safetensors")
        choices = {"views": 8, "device": "cpu", "prior": str(prior), **settings}
        folder = JobFolder.create(tmp_path / "jobs", *ask(volume.array, grid=volume.grid, choices=choices))
    return folder, Task(folder, SimpleNamespace(), sent.append)


def test_a_job_goes_on_in_the_precision_it_began_with(tmp_path, machine, monkeypatch):
    native, emulated = {"avx512_bf16": True}, {"avx512_bf16": False}
    sent: list[Any] = []
    folder, first = job(tmp_path, machine, native, monkeypatch, sent)
    assert (first._precision, folder.begun()["precision"]) == ("bfloat16", "bfloat16")
    _, anew = job(tmp_path, machine, emulated, monkeypatch, sent)  # no state to go on from: it begins again
    assert (anew._precision, folder.begun()["precision"]) == ("float32", "float32")
    (folder.path / "state" / "diffusion.pt").write_bytes(b"")
    assert not sent
    _, resumed = job(tmp_path, machine, native, monkeypatch, sent)
    assert resumed._precision == "float32"
    assert [event.text for event in sent] == ["the job goes on in float32, as it began, not in bfloat16"]
    assert anew._fingerprint() == resumed._fingerprint() != first._fingerprint()


def test_a_job_cannot_go_on_in_what_the_device_cannot_do(tmp_path, machine, monkeypatch):
    folder, _ = job(tmp_path, machine, {"avx512_bf16": True}, monkeypatch, [])
    (folder.path / "state" / "diffusion.pt").write_bytes(b"")
    monkeypatch.setattr(devices, "_computes_in", lambda precision, device: False)
    with pytest.raises(InputError, match="precision 'bfloat16' cannot be computed in on cpu"):
        job(tmp_path, machine, {"avx512_bf16": False}, monkeypatch, [])
