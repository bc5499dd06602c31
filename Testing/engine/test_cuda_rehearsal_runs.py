"""CUDA without a GPU: priors, samplers and whole reconstructions on the played device, and who waits for it."""

from __future__ import annotations

from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.config import ReconSettings
from DiffusionMBIRLib.denoisers import PartsDenoiser, PhaseDenoiser, SliceDenoiser
from DiffusionMBIRLib.errors import Cancelled
from DiffusionMBIRLib.methods import SUPERVISED_METHODS, methods_for
from DiffusionMBIRLib.models import MR_VALUE, ModelCard
from DiffusionMBIRLib.monitor import Silent
from DiffusionMBIRLib.operators import SliceDifference, projector
from DiffusionMBIRLib.priors.adm import ADMConfig, ADMUNet
from DiffusionMBIRLib.priors.analytic import GaussianPrior
from DiffusionMBIRLib.priors.checkpoints import build_prior, save_prior
from DiffusionMBIRLib.priors.compact import CompactConfig, CompactUNet
from DiffusionMBIRLib.priors.ncsnpp import NCSNpp, NCSNppConfig
from DiffusionMBIRLib.samplers import dds, dual, predictor_corrector, published
from DiffusionMBIRLib.samplers.noise import Noise
from DiffusionMBIRLib.samplers.posterior import Moments
from DiffusionMBIRLib.samplers.schedules import geometric_sigmas
from DiffusionMBIRLib.solvers.consistency import ZTVConsistency
from DiffusionMBIRLib.solvers.projection import Projection
from DiffusionMBIRLib.tasks import MR_TASK
from Testing.engine.helpers import body
from Testing.engine.mri import known_maps
from Testing.engine.mri import scan as mr_scan
from Testing.engine.rehearsal import on_both, rehearsed
from Testing.engine.test_cuda_rehearsal import GEOMETRY, GRID, drawn
from Testing.engine.test_reconstruction import Keeper, StopAt
from Testing.engine.test_supervised import write as write_supervised
from Testing.engine.test_supervised_mri import KINDS as OF_MRI
from Testing.engine.test_supervised_mri import write as write_supervised_mri
from Testing.engine.vectors import with_numbers

NETWORKS = {
    "compact": (CompactUNet, CompactConfig(widths=(8, 8), blocks=1, embedding=16)),
    "compact, one level": (CompactUNet, CompactConfig(widths=(8,), blocks=1, embedding=16)),
    "compact, two channels": (CompactUNet, CompactConfig(image_channels=2, widths=(8,), blocks=1, embedding=16)),
    "score": (NCSNpp, NCSNppConfig(width=8, multipliers=(1, 2), blocks=1, attention_levels=(1,))),
    "score, positions": (NCSNpp, NCSNppConfig(width=8, multipliers=(1, 2), blocks=1, embedding="positional")),
    "noise": (ADMUNet, ADMConfig(width=32, multipliers=(1, 1), blocks=1, attention_levels=(1,), head_channels=16)),
}


def network(name):
    torch.manual_seed(0)
    build, config = NETWORKS[name]
    made = with_numbers(build(config))
    with torch.no_grad():
        for parameter in made.parameters():
            if not parameter.any():  # some layers begin as zeros
                parameter.normal_(0, 0.05)
    return made


def prior_on(device, name="compact, one level", *, precision=torch.float32, **card):
    made = network(name)
    channels = made.config.image_channels
    entries = {"modality": "any", "channels": channels, "sigma_max": 12.0, "network": made.config.to_dict()} | card
    return build_prior(
        ModelCard("tiny", **entries), made.state_dict(), device=torch.device(device), precision=precision
    )


# --- priors


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("batch", [1, 3])
def test_an_evaluation_waits_twice_however_many_sub_batches_it_takes(name, batch):
    dtype = torch.complex64 if "two" in name else torch.float32

    def run(device):
        denoiser = SliceDenoiser(prior_on(device, name), batch)
        return denoiser(drawn((3, 13, 10), device, dtype), 0.3)

    expected, found, waits = on_both(run)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert waits["synchronize"] == 2  # for the clock: before and after
    assert set(waits) == {"copy", "synchronize"}  # copies of the weights


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_precision_inside_the_network_is_the_devices(precision):
    def run(device):
        return prior_on(device, precision=precision).denoise(drawn((2, 1, 8, 8), device), 0.3)

    expected, found, _ = on_both(run)
    assert found.dtype == torch.float32
    difference = float((found - expected).abs().max() / expected.abs().max())
    assert difference <= (1e-5 if precision == torch.float32 else 2 * torch.finfo(precision).eps)


@pytest.mark.parametrize("wrapped", ["parts", "phase"])
def test_priors_of_magnitudes_see_complex_volumes_on_the_device(wrapped):
    def run(device):
        x = drawn((3, 8, 8), device, torch.complex64)
        slices = SliceDenoiser(prior_on(device), 2)
        return (PartsDenoiser(slices) if wrapped == "parts" else PhaseDenoiser(slices, x.angle(), 0.1))(x, 0.3)

    expected, found, waits = on_both(run)
    assert torch.allclose(found, expected, atol=1e-5)
    assert waits["synchronize"] == (4 if wrapped == "parts" else 2)


def test_the_prior_in_closed_form_follows_what_it_is_given():
    prior = GaussianPrior.smooth((8, 8))
    expected, found, _ = on_both(lambda device: prior.denoise(drawn((2, 1, 8, 8), device), 0.3))
    assert torch.allclose(found, expected, atol=1e-6)


def test_without_memory_a_sub_batch_is_halved_on_the_device():
    class Greedy(GaussianPrior):
        def denoise(self, x, sigma):
            if len(x) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().denoise(x, sigma)

    def run(device):
        denoiser = SliceDenoiser(Greedy(0.2, 0.05), 5)
        x = denoiser(drawn((5, 4, 4), device), 0.3)
        assert denoiser.slices_per_batch == 2
        return x

    expected, found, _ = on_both(run)
    assert torch.allclose(found, expected, atol=1e-6)


# --- samplers

LEVELS = 6
SIGMAS = geometric_sigmas(0.05, 0.5, LEVELS)
RESIDUALS = 2  # looked at after steps 1 and 6; where a step comes after the last level, after that one, too


def tools(device, span=1):
    """(denoiser, consistency, start, noise) of a small scan."""
    A = projector(GEOMETRY, GRID, device=device).scaled(0.02)
    y = A @ drawn(A.domain.shape, device, seed=3).abs()
    D = SliceDifference(A.domain)
    consistency = ZTVConsistency(A, y, difference=D, rho=0.1, lam=0.01, cg_steps=2, noise=0.02)
    start = drawn(A.domain.shape, device, seed=4)
    return SliceDenoiser(prior_on(device), 2), consistency, start, Noise(A.domain, 5, span=span)


def run_dds(device, span=1, **options):
    denoiser, consistency, start, noise = tools(device, span)
    return counted(device, start, lambda: dds.sample(denoiser, consistency, SIGMAS, start, noise, **options))


def run_dual(device):
    denoiser, consistency, start, noise = tools(device)
    return counted(device, start, lambda: dual.sample(denoiser, consistency, SIGMAS, start, noise, damping=0.5))


def run_mbir(device, **options):
    denoiser, consistency, start, noise = tools(device)
    sample = predictor_corrector.sample
    return counted(device, start, lambda: sample(denoiser, consistency, SIGMAS, start, noise, **options))


def run_slicewise(device, normalised):
    denoiser, consistency, start, noise = tools(device)
    project = Projection(consistency.A, consistency.y, normalised=normalised)
    sample = partial(predictor_corrector.sample, after_predictor=True)
    return counted(device, start, lambda: sample(denoiser, project, SIGMAS, start, noise))


def run_published_mbir(device):
    denoiser, consistency, start, noise = tools(device)
    levels = published.mbir_levels(0.05, 0.5, LEVELS)
    return counted(device, start, lambda: published.sample_mbir(denoiser, consistency, levels, noise))


def run_published_dds(device):
    denoiser, consistency, start, noise = tools(device)
    return counted(device, start, lambda: published.sample_dds(denoiser, consistency, SIGMAS, noise))


def counted(device, on_device, sample):
    """What ``sample()`` returns, once it waited as it must: only its own waits count, not those of its tools."""
    if device == "cuda":
        on_device.home.waits.clear()
    return sample()


BOTH = 2 * LEVELS  # evaluations of predictor and corrector: at the last level one, at the end another
SAMPLERS = {
    "dds": (partial(run_dds, eta=1.0), LEVELS, RESIDUALS),
    "dds, noise kept and shared": (
        partial(run_dds, span=2, eta=0.8, extrapolation=0.3, share_variables=False),
        LEVELS,
        RESIDUALS,
    ),
    "dual": (run_dual, LEVELS, RESIDUALS),
    "mbir": (run_mbir, BOTH, RESIDUALS + 1),
    "mbir-slow": (partial(run_mbir, share_variables=False), BOTH, RESIDUALS + 1),
    "score-ct": (partial(run_slicewise, normalised=True), BOTH, RESIDUALS + 1),
    "score-mri": (partial(run_slicewise, normalised=False), BOTH, RESIDUALS + 1),
    "published mbir": (run_published_mbir, BOTH, RESIDUALS),
    "published dds": (run_published_dds, LEVELS, RESIDUALS),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_wait_for_the_clock_and_every_fifth_residual_alone(name):
    run, evaluations, residuals = SAMPLERS[name]
    expected, found, waits = on_both(run)
    assert float((found - expected).abs().max()) <= 1e-4 * float(expected.abs().max())
    assert waits == {"synchronize": 2 * evaluations, "value": residuals}


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_the_moments_of_samples_never_wait(dtype):
    def run(device):
        volumes = [drawn((2, 3, 4), device, dtype, seed) for seed in range(3)]
        return counted(device, volumes[0], lambda: moments_of(volumes))

    def moments_of(volumes):
        moments = Moments(volumes[0], {})
        for number, volume in enumerate(volumes):
            moments.add(volume, number + 1)
        return moments.mean, moments.deviation(len(volumes))

    expected, found, waits = on_both(run)
    assert torch.allclose(found[0], expected[0])
    assert torch.allclose(found[1], expected[1])
    assert not waits


# --- whole reconstructions

FAST = {"steps": 2, "cg_steps": 2, "start_sweeps": 2, "tv_sweeps": 2, "sirt_iterations": 2, "cg_iterations": 2}
FAST |= {"cgls_iterations": 2, "sart_passes": 2}


def ct_scan(views=12, **options):
    return mbir.simulate(body((3, 12, 10)), **{"views": views, "photons": 1e5, "seed": 1} | options)


def reconstructed(device, scan, monitor=None, checkpoint=None, prior=None, **changes):
    chosen = ReconSettings(**FAST | {"start": "sense-cg" if scan.task == MR_TASK else "admm-tv"} | changes)
    value = {"value": MR_VALUE} if scan.task == MR_TASK else {}
    return mbir.reconstruct(
        scan,
        prior=prior or GaussianPrior(0.3, 0.05, sigma_max=200.0, **value),
        settings=chosen,
        device=device,
        monitor=monitor,
        checkpoint=checkpoint,
    )


def both_volumes(run):
    """The volumes from the CPU and from the played device, the waits there; provenance tells the device."""
    expected = run("cpu")
    with rehearsed() as device:
        found = run("cuda")
    assert (expected.provenance["device"], found.provenance["device"]) == ("cpu", "cuda")
    return expected.volume.array, found.volume.array, device.waits


def close(found, expected):
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


OF_METAL = ("nmar", "metal-linear")  # which want raw projections, not a simulated scan
CT_RUNS = [
    {"method": m, "sweeps": 2} for m in methods_for("sparse-view-ct") if m not in (*SUPERVISED_METHODS, *OF_METAL)
] + [
    {"method": "dds", "preconditioner": 0.03, "tv_axes": "xyz"},
    {"method": "dds", "samples": 2, "start": "fbp"},
    {"method": "dds", "published": True},
    {"method": "mbir", "published": True},
]


@pytest.mark.parametrize("changes", CT_RUNS, ids=str)
def test_ct_on_the_device_is_that_of_the_cpu(changes):
    expected, found, _ = both_volumes(partial(reconstructed, scan=ct_scan(), **changes))
    close(found, expected)


def test_a_start_from_a_part_of_many_views_is_made_on_the_device():
    scan = ct_scan(views=90, angle_range_deg=90.0)
    expected, found, _ = both_volumes(partial(reconstructed, scan=scan, method="dds"))
    close(found, expected)


MR_RUNS = [
    *((4, {"method": method, "sweeps": 2}) for method in methods_for(MR_TASK) if method not in SUPERVISED_METHODS),
    *((1, {"method": method}) for method in ("dds", "admm-tv", "zero-filled")),
    (4, {"method": "dds", "complex_prior": "real-imaginary", "start": "admm-tv"}),
    (4, {"method": "dds", "samples": 2, "virtual_coils": 2}),
    (1, {"method": "mbir", "published": True}),
]


@pytest.mark.parametrize(("coils", "changes"), MR_RUNS, ids=str)
def test_mri_on_the_device_is_that_of_the_cpu(coils, changes):
    if changes["method"] == "espirit-l1":
        pytest.importorskip("sigpy")  # on the host, between two copies
    scan = mr_scan(coils=coils, acs=0.5)
    scan = known_maps(scan) if coils > 1 else scan
    expected, found, _ = both_volumes(partial(reconstructed, scan=scan, **changes))
    close(found, expected)


@pytest.mark.parametrize("kind", SUPERVISED_METHODS)
def test_supervised_networks_run_on_the_device(kind, tmp_path):
    if kind in OF_MRI:
        path, scan = str(write_supervised_mri(tmp_path, kind)), known_maps(mr_scan(coils=4, acs=0.5))
    else:
        task = "limited-angle-ct" if kind == "zhang" else "sparse-view-ct"
        path, scan = str(write_supervised(tmp_path, kind, task)), ct_scan(task=task)

    def run(device):
        settings = ReconSettings(method=kind, start="admm-tv")
        return mbir.reconstruct(scan, prior=path, settings=settings, device=device)

    expected, found, waits = both_volumes(run)
    # In bfloat16, which CUDA and CPU choose for other operations.
    assert np.abs(found - expected).mean() <= torch.finfo(torch.bfloat16).eps * np.abs(expected).mean()
    assert waits["synchronize"] == 2 * {"lahiri": 2, "dudornet": 4}.get(kind, 1)


def test_a_prior_from_a_file_goes_to_the_device_that_is_there(tmp_path):
    made = network("compact")
    path = tmp_path / "tiny.safetensors"
    save_prior(made, ModelCard("tiny", modality="CT", sigma_max=12.0, network=made.config.to_dict()), path)
    with rehearsed():
        result = mbir.reconstruct(ct_scan(), prior=str(path), settings=ReconSettings(**FAST), device="auto")
    assert result.provenance["device"] == "cuda"
    assert np.isfinite(result.volume.array).all()


def test_five_more_levels_of_dds_wait_for_five_more_clocks_and_one_residual():
    runs = []
    for steps in (2, 7):
        with rehearsed() as device:
            reconstructed("cuda", ct_scan(), prior=prior_on("cuda"), method="dds", start="fbp", steps=steps)
        runs.append(device.waits)
    assert runs[1] - runs[0] == Counter(synchronize=10, value=1)


@pytest.mark.parametrize(
    ("method", "setting"),
    [
        ("admm-tv", "tv_sweeps"),
        ("sirt", "sirt_iterations"),
        ("cgls", "cgls_iterations"),
        ("os-sart", "sart_passes"),
    ],
)
def test_more_iterations_without_a_prior_wait_no_longer(method, setting):
    runs = []
    for count in (2, 5):
        with rehearsed() as device:
            reconstructed("cuda", ct_scan(), method=method, **{setting: count})
        runs.append(device.waits)
    assert runs[0] == runs[1]


class Looking(Silent):
    """Looks at every preview."""

    def __init__(self):
        self.seen = 0

    def preview(self, estimate, step):
        if step:  # the direct reconstruction, at 0, is computed for the preview alone
            assert np.isfinite(estimate().array).all()
            self.seen += 1


def test_a_preview_costs_a_wait_where_somebody_looks_and_none_else():
    runs, looking = [], Looking()
    for monitor in (Silent(), looking):
        with rehearsed() as device:
            reconstructed("cuda", ct_scan(), monitor=monitor, method="dds")
        runs.append(device.waits)
    assert looking.seen == FAST["start_sweeps"] + FAST["steps"]
    assert runs[1] - runs[0] == Counter(copy=looking.seen)


@pytest.mark.parametrize(
    "changes", [{"method": "dds", "preconditioner": 0.03}, {"method": "mbir", "samples": 2}], ids=str
)
def test_a_run_that_was_ended_goes_on_to_the_same_volume_on_the_device(changes):
    with rehearsed():
        whole = reconstructed("cuda", ct_scan(), **changes).volume.array
        keeper = Keeper()
        with pytest.raises(Cancelled):
            reconstructed("cuda", ct_scan(), StopAt(FAST["start_sweeps"] + 2), keeper, **changes)
        again = reconstructed("cuda", ct_scan(), checkpoint=keeper, **changes).volume.array
    assert np.array_equal(whole, again)
