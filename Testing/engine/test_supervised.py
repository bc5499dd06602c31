"""Supervised baselines as methods: networks, the data-consistency update, results, and clear words on what is wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.benchmark.plan import limited_angle, sparse_view
from DiffusionMBIRLib.benchmark.run import Subject, left_out, run_benchmark
from DiffusionMBIRLib.config import ReconSettings
from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.estimate import estimate, evaluations
from DiffusionMBIRLib.geometry import view_angles
from DiffusionMBIRLib.methods import SUPERVISED_METHODS
from DiffusionMBIRLib.models import ModelCard, read_card
from DiffusionMBIRLib.operators import projector
from DiffusionMBIRLib.priors.analytic import GaussianPrior
from DiffusionMBIRLib.priors.checkpoints import load_prior, save_prior
from DiffusionMBIRLib.rates import Pace
from DiffusionMBIRLib.supervised.about import TASKS_OF, network_name
from DiffusionMBIRLib.supervised.consistency import data_consistency
from DiffusionMBIRLib.supervised.methods import SupervisedNetwork, load_network
from DiffusionMBIRLib.supervised.networks import StagedNetwork, SupervisedConfig, condition
from DiffusionMBIRLib.tasks import CT_TASKS, MR_TASK
from Testing.engine.helpers import body

KINDS = [(kind, task) for kind in SUPERVISED_METHODS for task in TASKS_OF[kind] if task in CT_TASKS]
VIEWS = {"sparse-view-ct": (12, 180.0), "limited-angle-ct": (90, 90.0)}


def network(kind: str, task: str, *, seed: int = 0, **sizes) -> SupervisedNetwork:
    """A small one whose weights are all random: an untrained residual network would be the identity."""
    torch.manual_seed(seed)
    sizes = {"widths": (8, 12), "blocks": 1} | sizes
    made = StagedNetwork(SupervisedConfig(kind, task, **sizes))
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(0.05 * torch.randn(weight.shape))
    return SupervisedNetwork(made, ModelCard(id="tiny", modality="CT", network=made.config.to_dict()))


def write(folder: Path, kind: str, task: str, **options) -> Path:
    made = network(kind, task, **options)
    path = folder / f"{network_name(kind, task)}.safetensors"
    save_prior(made.network, made.card, path)
    return path


def scan(task: str, shape: tuple[int, int, int] = (3, 32, 32), **options):
    views, angles = VIEWS[task]
    return mbir.simulate(body(shape), task=task, views=views, angle_range_deg=angles, **options)


# --- networks


def test_a_network_is_told_of_its_scan():
    assert condition(view_angles(8), "sparse-view-ct") == pytest.approx(np.log(8) / 4)
    for degrees in (60, 90, 120):
        for step in (1, 2):
            angles = view_angles(degrees // step, degrees)
            assert condition(angles, "limited-angle-ct") == pytest.approx(degrees / 45, rel=1e-6)
    with pytest.raises(InputError, match="task"):
        condition(view_angles(8), MR_TASK)


@pytest.mark.parametrize(("kind", "task"), KINDS)
def test_what_it_is_told_and_every_stage_matter(kind, task):
    made = network(kind, task)
    x = torch.rand(2, 1, 20, 27)
    first = made.restore(x, 0.5, 0)
    assert first.shape == x.shape
    assert first.dtype == torch.float32
    assert not torch.allclose(first, made.restore(x, 1.5, 0))
    assert len(made.network.stages) == (2 if kind == "lahiri" else 1)
    if kind == "lahiri":
        assert not torch.allclose(first, made.restore(x, 0.5, 1))


@pytest.mark.parametrize(("kind", "task"), KINDS)
def test_default_networks_fit_into_the_repository(kind, task):
    config = SupervisedConfig(kind, task)
    assert config == SupervisedConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    count = sum(weight.numel() for weight in StagedNetwork(config).parameters())
    assert 2 * count < 2.4e6
    assert 128 % config.multiple == 0


def test_files_keep_a_network(tmp_path):
    path = write(tmp_path, "lahiri", "sparse-view-ct", seed=3, penalty=0.02)
    loaded = load_network(str(path), "lahiri", "sparse-view-ct", device=torch.device("cpu"))
    made = network("lahiri", "sparse-view-ct", seed=3, penalty=0.02)
    assert loaded.config == made.config
    assert loaded.card == replace(made.card, network=loaded.card.network)
    for name, weight in made.network.state_dict().items():
        torch.testing.assert_close(loaded.network.state_dict()[name], weight.half().float())


# --- the data-consistency update


@pytest.fixture(scope="module")
def problem():
    measured = scan("sparse-view-ct")
    raw = projector(measured.geometry, measured.grid, dtype=torch.float64)
    A = raw.scaled(1 / raw.norm())
    x = torch.rand(A.domain.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = A.forward(torch.rand(A.domain.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64))
    return A, y, x


def test_data_consistency_minimises_its_objective(problem):
    A, y, x = problem
    penalty = 0.05
    u = data_consistency(A, y, x, penalty=penalty, steps=100)
    gradient = A.adjoint(A.forward(u) - y) + penalty * (u - x)
    assert gradient.norm() < 1e-5 * A.adjoint(y).norm()

    def objective(v):
        return float((A.forward(v) - y).square().sum() + penalty * (v - x).square().sum())

    for seed in range(3):
        step = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        assert objective(u) < min(objective(u + 1e-3 * step), objective(u - 1e-3 * step))


def test_data_consistency_leads_from_the_network_to_the_data(problem):
    A, y, x = problem
    before, kept = A.distance(x, y), x.clone()
    residuals = [A.distance(data_consistency(A, y, x, penalty=p, steps=60), y) for p in (1e-3, 1e-2, 1e-1, 1e4)]
    assert all(a < b for a, b in zip(residuals, [*residuals[1:], before], strict=True))
    assert residuals[0] < 0.05 * before
    torch.testing.assert_close(data_consistency(A, y, x, penalty=1e9, steps=20), x)
    assert torch.equal(x, kept)


# --- reconstruction


@pytest.mark.parametrize(("kind", "task"), KINDS)
@pytest.mark.parametrize("photons", [0.0, 1e6])
def test_every_method_returns_hu_on_the_inputs_geometry(kind, task, photons, tmp_path):
    path, volume = write(tmp_path, kind, task), body((3, 32, 30))
    measured = scan(task, (3, 32, 30), photons=photons)
    settings = ReconSettings(method=kind, prior=str(path))
    ticks: list[tuple[str, int, int]] = []

    class Watcher(mbir.monitor.Silent):
        def tick(self, stage, done, total, **metrics):
            ticks.append((stage, done, total))

    result = mbir.reconstruct(measured, settings=settings, monitor=Watcher())
    stages = 2 if kind == "lahiri" else 1
    assert result.volume.unit == "HU"
    assert result.volume.grid == volume.grid
    assert np.isfinite(result.volume.array).all()
    assert result.nfe == evaluations(settings) == stages
    assert result.network_seconds > 0
    assert ticks == [(kind, k + 1, stages) for k in range(stages)]
    assert result.provenance["prior"]["id"] == "tiny"
    assert len(result.provenance["prior"]["sha256"]) == 64
    assert result.volume.array.std() > 10
    if kind == "lahiri" and not photons:  # ends on the data, whatever its networks made of them
        assert result.residual < 0.05


def test_an_untrained_residual_network_is_fbp_and_the_sub_batch_changes_nothing(tmp_path):
    torch.manual_seed(0)
    plain = StagedNetwork(SupervisedConfig("fbpconvnet", "sparse-view-ct", widths=(8, 12), blocks=1))
    torch.nn.init.zeros_(plain.stages[0].unet.head.bias)  # its weights are zero already
    card = ModelCard(id="plain", modality="CT", network=plain.config.to_dict())
    save_prior(plain, card, tmp_path / "plain.safetensors")
    measured = scan("sparse-view-ct")

    def run(**settings):
        return mbir.reconstruct(measured, settings=ReconSettings(**settings)).volume.array

    name = str(tmp_path / "plain.safetensors")
    np.testing.assert_allclose(run(method="fbpconvnet", prior=name), run(method="fbp"), atol=0.1)
    path = str(write(tmp_path, "fbpconvnet", "sparse-view-ct"))
    whole = run(method="fbpconvnet", prior=path, precision="float32")
    single = run(method="fbpconvnet", prior=path, precision="float32", slices_per_batch=1)
    np.testing.assert_allclose(single, whole, atol=0.1)


def test_a_run_is_estimated():
    shape = (40, 128, 128)
    for kind, task in KINDS:
        pace = Pace(network=1e-6, solver=1e-9)
        found = estimate(shape, ReconSettings(method=kind, prior="mine.safetensors"), task, pace=pace)
        diffusion = estimate(shape, ReconSettings(steps=50), task, pace=pace)
        assert found.seconds is not None
        assert diffusion.seconds is not None
        assert 0 < found.seconds < diffusion.seconds / 5
        assert found.memory_bytes > 0


# --- what is wrong


@pytest.mark.parametrize(
    ("method", "task", "prior", "reason"),
    [
        ("fbpconvnet", "sparse-view-ct", "ct-compact-v1", "train --method fbpconvnet"),
        ("fbpconvnet", "sparse-view-ct", "nowhere.safetensors", "neither a file nor an installed id"),
        ("lahiri", "sparse-view-ct", "fbpconvnet-sparse-view", "network of fbpconvnet; method lahiri needs"),
        ("lahiri", "limited-angle-ct", "lahiri-sparse-view", "trained for the task sparse-view-ct"),
        ("dds", "sparse-view-ct", "lahiri-sparse-view", "works with --method lahiri only"),
        ("zhang", "limited-angle-ct", "damaged", "weights do not fit"),
        ("zhang", "limited-angle-ct", "published.pth", "this is a torch checkpoint"),
    ],
)
def test_a_network_that_does_not_fit_is_named(method, task, prior, reason, tmp_path):
    for kind in ("fbpconvnet", "lahiri"):
        write(tmp_path, kind, "sparse-view-ct")
    other = network("zhang", "limited-angle-ct")
    card = replace(other.card, network=other.config.to_dict() | {"widths": [16]})
    save_prior(other.network, card, tmp_path / "damaged.safetensors")
    torch.save({"model": {}}, tmp_path / "published.pth")
    path = tmp_path / (prior if prior.endswith(".pth") else f"{prior}.safetensors")
    settings = ReconSettings(method=method, prior=str(path) if path.is_file() else prior)
    with pytest.raises(InputError, match=reason) as caught:
        mbir.reconstruct(scan(task), settings=settings)
    assert "\n" not in str(caught.value)


def test_mr_data_and_other_objects_are_refused(tmp_path):
    path = write(tmp_path, "fbpconvnet", "sparse-view-ct")
    volume = replace(body((2, 32, 32)), unit="")
    kspace = mbir.simulate(replace(volume, array=np.abs(volume.array)), task=MR_TASK)
    with pytest.raises(InputError, match="'fbpconvnet' does not fit the task compressed-sensing-mri"):
        mbir.reconstruct(kspace, settings=ReconSettings(method="fbpconvnet", prior=str(path), start="noise"))
    with pytest.raises(InputError, match="works with --method fbpconvnet only"):
        load_prior(path)
    prior = GaussianPrior.smooth((32, 32), deviation=0.25, length_px=1.5)
    settings = ReconSettings(method="fbpconvnet")
    with pytest.raises(InputError, match="method fbpconvnet needs a network"):
        mbir.reconstruct(scan("sparse-view-ct"), prior=prior, settings=settings)
    made = network("fbpconvnet", "sparse-view-ct")
    with pytest.raises(InputError, match="no diffusion prior"):
        mbir.reconstruct(scan("sparse-view-ct"), prior=made, settings=ReconSettings(start="fbp", steps=2))


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ({"kind": "magic", "task": CT_TASKS[0]}, "none of fbpconvnet, lahiri, zhang, unet, dudornet"),
        ({"kind": "zhang", "task": CT_TASKS[0]}, "zhang serves the task limited-angle-ct"),
        ({"kind": "lahiri", "task": CT_TASKS[0], "penalty": 0.0}, "penalty must be positive"),
        (
            {"kind": "lahiri", "task": CT_TASKS[0], "widths": [8, -1]},
            "widths must be a list, each entry a whole number",
        ),
        ({"kind": "lahiri"}, "field task is missing"),
    ],
)
def test_bad_architectures_are_named(entries, reason):
    with pytest.raises(InputError, match=reason):
        SupervisedConfig.from_dict(entries)


# --- benchmark


def test_rows_of_the_benchmark_run_where_their_networks_are(tmp_path):
    write(tmp_path, "lahiri", "sparse-view-ct")
    write(tmp_path, "zhang", "limited-angle-ct", widths=(8,))
    body((3, 32, 32)).save(tmp_path / "body.nrrd")
    scans = (sparse_view(8), limited_angle(90))
    methods = ("FBP", "FBPConvNet", "Lahiri et al.", "Zhang et al.")
    records = run_benchmark(
        [Subject("body", tmp_path / "body.nrrd", coarsen=1)],
        scans,
        tmp_path / "out",
        methods=methods,
        supervised=tmp_path,
        device="cpu",
    )
    rows = [(r["task"], r["method"]) for r in records]
    assert rows == [
        ("sparse-view-ct", "FBP"),
        ("sparse-view-ct", "Lahiri et al."),
        ("limited-angle-ct", "FBP"),
        ("limited-angle-ct", "Zhang et al."),
    ]
    assert records[1]["note"].startswith("A small re-implementation")
    assert records[1]["prior"].startswith("tiny ")
    missing = [Path(name).name for name in left_out(scans, tmp_path)]
    assert missing == ["fbpconvnet-sparse-view.safetensors", "lahiri-limited-angle.safetensors"]


def test_the_networks_of_the_table_say_what_they_are():
    from DiffusionMBIRLib.supervised.about import DEPARTURES, networks_folder

    for kind, task in KINDS:
        path = networks_folder() / f"{network_name(kind, task)}.safetensors"
        card = read_card(path)
        assert path.stat().st_size < 2.5e6
        assert card.id == path.stem
        assert card.limits.startswith(DEPARTURES[kind])
        assert "not for diagnosis" in card.limits
        assert card.licence.startswith("CC BY 4.0")
        assert all(entry["licence"] and entry["attribution"] for entry in card.data)
        assert load_network(str(path), kind, task, device=torch.device("cpu")).config.kind == kind
