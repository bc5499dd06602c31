"""The whole engine on small data: measurement in, volume out, in HU on the input's own geometry."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.config import ReconSettings, preset_values
from DiffusionMBIRLib.errors import Cancelled, InputError
from DiffusionMBIRLib.geometry import Grid
from DiffusionMBIRLib.methods import DIFFUSION_METHODS, SUPERVISED_METHODS, methods_for
from DiffusionMBIRLib.models import ModelCard, ValueScale
from DiffusionMBIRLib.monitor import Silent
from DiffusionMBIRLib.priors.analytic import GaussianPrior
from DiffusionMBIRLib.priors.checkpoints import CompactPrior
from DiffusionMBIRLib.priors.compact import CompactConfig, CompactUNet
from DiffusionMBIRLib.tasks import LIMITED_ANGLE, TASKS, task_info
from DiffusionMBIRLib.volume import Volume
from Testing.engine.helpers import body
from Testing.engine.memory import LiveBytes

FAST = {"steps": 3, "start_sweeps": 20, "tv_sweeps": 20, "sirt_iterations": 50}


def small_prior(**card):
    torch.manual_seed(0)
    entries = {"id": "small", "modality": "CT", "sigma_max": 12.0} | card
    return CompactPrior(CompactUNet(CompactConfig(widths=(8, 8), blocks=1)), ModelCard(**entries))


OF_METAL = ("nmar", "metal-linear")  # which bridge the rays of metal in raw projections


@pytest.mark.parametrize(
    "method", [m for m in methods_for("sparse-view-ct") if m not in (*SUPERVISED_METHODS, *OF_METAL)]
)
def test_every_method_returns_hu_on_the_inputs_geometry(method):
    volume = body()
    scan = mbir.simulate(volume, views=24, seed=1)
    prior = GaussianPrior.smooth((32, 32), deviation=0.25, length_px=1.5)
    settings = ReconSettings(**FAST | {"method": method, "steps": 20})
    result = mbir.reconstruct(scan, prior=prior, settings=settings)
    assert result.volume.unit == "HU"
    assert result.volume.grid == volume.grid
    quality = mbir.evaluate(result.volume, volume)
    assert quality["axial"]["psnr"] > 20
    assert (result.nfe > 0) == (method in DIFFUSION_METHODS)
    assert 0 <= result.residual < 0.2
    assert result.provenance["settings"]["method"] == method
    assert json.loads(result.volume.metadata["provenance"])["notice"].startswith("Research use only")


def test_a_sagittally_stored_volume_comes_back_sagittal():
    axial = body()
    # array axes (x, z, y): slices along the patient's left, rows upwards, columns to the back
    stored = np.ascontiguousarray(np.transpose(axial.array, (2, 0, 1)))
    x, y, z = axial.grid.spacing_mm
    grid = Grid(stored.shape, (y, z, x), axial.grid.origin_mm, (0, 0, 1, 1, 0, 0, 0, 1, 0))
    settings = ReconSettings(method="sirt", sirt_iterations=30)
    twin = mbir.reconstruct(mbir.simulate(Volume(stored, grid), views=12), settings=settings)
    straight = mbir.reconstruct(mbir.simulate(axial, views=12), settings=settings)
    assert twin.volume.grid == grid
    np.testing.assert_allclose(np.transpose(twin.volume.array, (1, 2, 0)), straight.volume.array, atol=0.5)


@pytest.mark.parametrize("shape", [(1, 32, 32), (2, 30, 46), (5, 33, 21)])
def test_any_size_and_any_number_of_slices(shape):
    volume = body(shape)
    scan = mbir.simulate(volume, views=16)
    result = mbir.reconstruct(scan, prior=small_prior(), settings=ReconSettings(**FAST))
    assert result.volume.array.shape == shape
    assert np.isfinite(result.volume.array).all()


@pytest.mark.slow
@pytest.mark.parametrize("method", [m for m in methods_for("sparse-view-ct") if m in DIFFUSION_METHODS])
def test_the_seed_decides_and_the_sub_batch_does_not(method):
    scan = mbir.simulate(body((5, 24, 24)), views=8)
    prior = small_prior()

    def run(**changes):
        return mbir.reconstruct(scan, prior=prior, settings=ReconSettings(method=method, **FAST | changes)).volume.array

    first = run(seed=7)
    assert np.array_equal(first, run(seed=7))
    assert np.abs(first - run(seed=8)).max() > 1
    for count in (1, 2, 5):
        # bf16 convolutions may round differently for another batch: 2000 HU x 2^-8 x a few
        np.testing.assert_allclose(run(seed=7, slices_per_batch=count), first, atol=15)


def test_the_value_scale_of_the_card_is_undone():
    """A prior that works on another scale, with air not at zero, gives the same volume."""
    scan = mbir.simulate(body(), views=24)

    class Blur:
        """Smooths at every level: linear, and the same for every scale of values."""

        sigma_min, sigma_max = 0.0, 1e4

        def __init__(self, value):
            self.card = ModelCard(id="blur", modality="CT", value=value)

        def denoise(self, x, sigma):
            return torch.nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)

    def run(value):
        # strengths and noise levels are in the value scale: none of them here
        settings = ReconSettings(steps=2, start="fbp", lam=0.0, sigma_start=0.005, sigma_end=0.0005, eta=0.0)
        return mbir.reconstruct(scan, prior=Blur(value), settings=settings).volume.array

    np.testing.assert_allclose(run(ValueScale(-1000, 2000)), run(ValueScale(-1024, 2500)), atol=25)


@pytest.mark.slow
def test_photon_noise_is_weighted():
    """The weight of a ray follows its photons: the total-variation result is better than with equal weights."""
    from dataclasses import replace

    volume = body((3, 48, 48), (6.0, 6.0, 3.0))
    scan = mbir.simulate(volume, views=60, photons=2e3, seed=2)
    settings = ReconSettings(method="admm-tv", tv_lam=3e-4)
    weighted = mbir.evaluate(mbir.reconstruct(scan, settings=settings).volume, volume)
    equal = mbir.evaluate(mbir.reconstruct(replace(scan, photons=0.0), settings=settings).volume, volume)
    assert weighted["axial"]["psnr"] > equal["axial"]["psnr"]


def test_rays_of_many_photons_weigh_the_same():
    """Pixels err by more than the noise then; weights by photons alone would differ as ever."""
    scan = mbir.simulate(body((2, 32, 32), (6.0, 6.0, 3.0)), views=12, photons=1e9, seed=2)
    settings = ReconSettings(method="admm-tv", tv_sweeps=20)
    many, equal = (
        mbir.reconstruct(replace(scan, photons=photons), settings=settings).volume.array for photons in (1e9, 0.0)
    )
    few = mbir.reconstruct(replace(scan, photons=1e3), settings=settings).volume.array
    assert np.abs(many - equal).max() < 1.0
    assert np.abs(few - equal).max() > 20.0


def test_softening_leaves_the_data_to_the_prior_at_the_end():
    scan = mbir.simulate(body((2, 32, 32), (6.0, 6.0, 3.0)), views=12)

    def residual(softening):
        settings = ReconSettings(steps=6, start_sweeps=5, cg_steps=10, noise_weight=softening)
        return mbir.reconstruct(scan, prior=GaussianPrior(0.5, 0.04), settings=settings).residual

    assert residual(0.0) < residual(1.0) < residual(10.0)


@pytest.mark.slow
@pytest.mark.parametrize("samples", [1, 4])
@pytest.mark.parametrize("preset", ["sparse-view", "limited-angle"])
def test_a_whole_run_holds_few_volumes(monkeypatch, preset, samples):
    """Beside the projector's matrix, once that is built, and with a prior that takes nothing.

    Several samples hold three more: the start that they share, their mean and their spread.
    """
    from DiffusionMBIRLib.operators import slice_matrix

    class Built(Silent):
        def tick(self, stage, done, total, **metrics):
            live.peak = 0 if (stage, done) == ("ADMM-TV", 1) else live.peak

    task = f"{preset}-ct"
    scan = mbir.simulate(body((32, 96, 96), (4.0, 4.0, 4.0)), task=task, views=24 if task == "limited-angle-ct" else 8)
    monkeypatch.setattr("DiffusionMBIRLib.solvers.recycled._CHUNK", 2**14)
    sizes, build = [], slice_matrix._csr

    def seen(*arguments):
        matrix = build(*arguments)
        sizes.append(sum(t.nbytes for t in (matrix.values(), matrix.col_indices(), matrix.crow_indices())))
        return matrix

    monkeypatch.setattr(slice_matrix, "_csr", seen)
    live = LiveBytes()
    settings = ReconSettings.preset(preset, steps=3, start_sweeps=3, samples=samples)
    with live:
        mbir.reconstruct(scan, prior=GaussianPrior(0.5, 0.04), settings=settings, monitor=Built())
    most = 10 + 3 * (settings.samples > 1)
    assert live.peak - sum(sizes[:2]) < most * 4 * scan.grid.voxels


def test_cancelling_stops_the_run():
    class Impatient(Silent):
        def tick(self, stage, done, total, **metrics):
            if stage == "diffusion" and done == 2:
                raise Cancelled

    scan = mbir.simulate(body(), views=8)
    with pytest.raises(Cancelled):
        mbir.reconstruct(scan, prior=small_prior(), settings=ReconSettings(**FAST), monitor=Impatient())


def test_previews_are_volumes_in_hu_on_the_inputs_geometry():
    seen = []

    class Watcher(Silent):
        def preview(self, estimate, step):
            seen.append((step, estimate()))

    volume = body()
    scan = mbir.simulate(volume, views=8)
    result = mbir.reconstruct(scan, prior=small_prior(), settings=ReconSettings(**FAST), monitor=Watcher())
    assert [step for step, _ in seen] == [0, *range(1, 21), 1, 2, 3]  # the direct reconstruction first
    assert all(preview.grid == volume.grid and preview.unit == "HU" for _, preview in seen)
    np.testing.assert_array_equal(seen[-1][1].array, result.volume.array)
    fits = [mbir.evaluate(preview, volume)["axial"]["psnr"] for _, preview in seen[:21]]
    assert fits[20] > fits[5] > fits[1]
    assert fits[20] > fits[0]


class Keeper:
    """Keeps the newest state of each stage, as a file would: copies, with the layout that they had."""

    def __init__(self):
        self.states = {}

    def load(self, stage):
        state = self.states.get(stage)
        return {name: value.clone() for name, value in state.items()} if state else None

    def save(self, stage, state):
        self.states[stage] = {name: value.clone() for name, value in state.items()}


def test_several_samples_give_their_mean_and_their_spread():
    volume = body((4, 24, 24))
    scan, prior = mbir.simulate(volume, views=6), GaussianPrior.smooth((24, 24), deviation=0.25, length_px=1.5)
    settings = ReconSettings(**FAST, samples=3)
    together = mbir.reconstruct(scan, prior=prior, settings=settings)

    class Drawn(Silent):
        """Keeps the last preview of each pass."""

        def __init__(self):
            self.volumes = []

        def preview(self, estimate, step):
            if step == settings.steps:
                self.volumes.append(estimate().array.astype(np.float64))

    drawn = Drawn()
    mbir.reconstruct(scan, prior=prior, settings=settings, monitor=drawn)
    single = np.stack(drawn.volumes[-3:])
    assert np.abs(single[0] - single[1]).max() > 1
    np.testing.assert_allclose(together.volume.array, single.mean(0), atol=0.05)
    np.testing.assert_allclose(together.deviation.array, single.std(0, ddof=1), atol=0.05)
    assert together.deviation.grid == together.volume.grid
    assert together.nfe == 3 * settings.steps
    assert mbir.reconstruct(scan, prior=prior, settings=ReconSettings(**FAST)).deviation is None


class Levels(Silent):
    """Notes the noise levels."""

    def __init__(self):
        self.sigmas = []

    def tick(self, stage, done, total, **metrics):
        if "sigma" in metrics:
            self.sigmas.append(metrics["sigma"])


@pytest.mark.parametrize(("method", "few"), [("dds", (0.15625, 0.1)), ("dual", (0.4, 0.4))])
def test_the_first_level_falls_with_the_number_of_views_where_it_is_left_open(method, few):
    volume, prior = body((2, 24, 24)), GaussianPrior.smooth((24, 24), deviation=0.25, length_px=1.5)
    first = {}
    for views in (2, 4, 8, 24):
        heard = Levels()
        settings = ReconSettings(**FAST, method=method, sigma_start=0.0)
        mbir.reconstruct(mbir.simulate(volume, views=views), prior=prior, settings=settings, monitor=heard)
        first[views] = heard.sigmas[0]
    assert first == pytest.approx({2: 2.0, 4: 0.625, 8: few[0], 24: few[1]})
    heard = Levels()
    mbir.reconstruct(
        mbir.simulate(volume, views=20, angle_range_deg=90.0), prior=prior, settings=settings, monitor=heard
    )
    assert heard.sigmas[0] == pytest.approx({"dds": 0.1, "dual": 0.8}[method])
    heard = Levels()
    low = small_prior(sigma_max=0.5)
    mbir.reconstruct(mbir.simulate(volume, views=2), prior=low, settings=settings, monitor=heard)
    assert heard.sigmas[0] == pytest.approx(0.5)


class StopAt(Silent):
    """Ends a run at the given one of its ticks."""

    def __init__(self, at):
        self.left, self.stages = at, []

    def tick(self, stage, done, total, **metrics):
        self.stages.append((stage, done))
        self.left -= 1
        if self.left == 0:
            raise Cancelled("enough")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "moments"),
    [
        ({}, (1, 13, 20, 21, 22)),
        ({"samples": 3}, (20, 22, 23, 24, 25, 27)),
        ({"tv_axes": "xyz", "noise_span": 3}, (21, 22)),
        ({"method": "mbir", "start": "fbp"}, (1, 3)),
        ({"method": "admm-tv"}, (1, 19)),
        ({"method": "sirt"}, (7,)),
        ({"method": "dds", "published": True}, (1, 2)),
        ({"method": "mbir", "published": True}, (1, 2)),
    ],
)
def test_a_run_that_was_ended_goes_on_to_the_same_volume(changes, moments):
    scan, prior = mbir.simulate(body(), views=8), small_prior(sigma_max=200.0)
    settings = ReconSettings(**FAST | changes)
    whole = mbir.reconstruct(scan, prior=prior, settings=settings)
    for moment in moments:
        keeper, rest = Keeper(), StopAt(-1)
        with pytest.raises(Cancelled):
            mbir.reconstruct(scan, prior=prior, settings=settings, monitor=StopAt(moment), checkpoint=keeper)
        again = mbir.reconstruct(scan, prior=prior, settings=settings, monitor=rest, checkpoint=keeper)
        np.testing.assert_array_equal(again.volume.array, whole.volume.array)
        assert (again.deviation is None) == (whole.deviation is None) == (settings.samples == 1)
        if whole.deviation is not None:
            np.testing.assert_array_equal(again.deviation.array, whole.deviation.array)
        ticks = StopAt(-1)
        mbir.reconstruct(scan, prior=prior, settings=settings, monitor=ticks)
        assert len(rest.stages) <= len(ticks.stages) - moment + 1


def test_what_does_not_fit_is_named():
    scan = mbir.simulate(body(), views=8)
    with pytest.raises(InputError, match="prior 'small' is for MR"):
        mbir.reconstruct(scan, prior=small_prior(modality="MR"))
    with pytest.raises(InputError, match="sigma_start: 50 is above .* 'small', 12"):
        mbir.reconstruct(scan, prior=small_prior(), settings=ReconSettings(sigma_start=50.0))
    with pytest.raises(InputError, match="device 'tpu'"):
        mbir.reconstruct(scan, prior=small_prior(), device="tpu")
    with pytest.raises(InputError, match=r"device 'cuda:77' is not there"):
        mbir.reconstruct(scan, prior=small_prior(), device="cuda:77")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps: 0 lies outside 1 to 5000"),
        ({"steps": 2.5}, "steps: 2.5 is not a whole number"),
        ({"eta": "much"}, "eta: 'much' is not a number"),
        ({"eta": float("nan")}, "eta: nan lies outside"),
        ({"method": "magic"}, "method: 'magic' is not one of dual, dds, planes, mbir"),
    ],
)
def test_settings_are_checked(changes, message):
    with pytest.raises(InputError, match=message):
        ReconSettings(**changes)


def test_presets_are_valid_and_unknown_ones_are_named():
    from DiffusionMBIRLib.models import resources

    for path in (resources() / "Presets").glob("*.toml"):
        assert ReconSettings.preset(path.stem, seed=3).seed == 3
    with pytest.raises(InputError, match=r"preset 'quickly' is not known; presets: .*sparse-view"):
        ReconSettings.preset("quickly")


def test_a_preset_adds_to_the_one_it_is_based_on():
    usual, best = ReconSettings.preset("limited-angle"), ReconSettings.preset("limited-angle-best")
    assert best == replace(usual, steps=50)
    assert usual.lam != ReconSettings().lam  # so that the base can be seen to count
    assert ReconSettings.preset("mri-best").prior == ReconSettings.preset("mri").prior
    assert ReconSettings.preset("mri-best", method="dds").samples > 1 == ReconSettings.preset("mri-best").samples


@pytest.mark.parametrize("grade", ["", "-quick", "-best"])
@pytest.mark.parametrize("task", [task for task in TASKS if not task_info(task).of_slices])
def test_a_method_has_its_own_settings_of_a_preset(task, grade):
    """What dual was tuned to - the first level, data steps, few levels - stays with dual."""
    name = task_info(task).preset + grade
    own = ReconSettings.preset(name)
    assert own == ReconSettings.preset(name, method="dual")
    others = [ReconSettings.preset(name, method=method) for method in ("dds", "mbir")]
    for other in others:
        assert other.steps == (20 if grade == "-quick" else 50) >= own.steps * (1 + own.antithetic)
        assert (other.damping, other.samples) == (ReconSettings().damping, 4 if grade == "-best" else 1)
    if task == LIMITED_ANGLE:
        assert {other.sigma_start for other in others} == {0.4}
        assert {other.cg_steps for other in others} == {2 if not grade else 3 if grade == "-quick" else 4, 2}
        assert own.cg_steps > 2
        assert own.sigma_start == 0  # by the pixels and the wedge, see methods.dual
    assert ReconSettings.preset(name, method="dds", steps=7).steps == 7


def test_the_nearest_file_counts_and_in_it_the_table_of_the_method(tmp_path, monkeypatch):
    monkeypatch.setattr("DiffusionMBIRLib.models.resources", lambda: tmp_path)
    (tmp_path / "Presets").mkdir()
    base = "method = 'dds'\nsteps = 1\nlam = 0.1\nrho = 0.1\n[dds]\nsteps = 2\nlam = 0.2\n[mbir]\nrho = 0.3\n"
    (tmp_path / "Presets" / "base.toml").write_text(base)
    (tmp_path / "Presets" / "above.toml").write_text("base = 'base'\nsteps = 3\n[dds]\nrho = 0.4\n")
    values = {"method": "dds", "steps": 3, "lam": 0.2, "rho": 0.4}
    assert preset_values("above") == preset_values("above", "dds") == values
    assert preset_values("above", "mbir") == {"method": "dds", "steps": 3, "lam": 0.1, "rho": 0.3}
    assert ReconSettings.preset("above", method="mbir").rho == 0.3


def test_slices_count_by_their_spacing_unless_taken_as_published():
    """Strengths as published are for differences from slice to slice: at a weight w they mean rho / w^2 and lam / w."""
    volume = body((6, 24, 24))
    thin = Volume(volume.array, replace(volume.grid, spacing_mm=(2.0, 2.0, 0.5)))
    scan, prior = mbir.simulate(thin, views=6), GaussianPrior.smooth((24, 24), deviation=0.25, length_px=1.5)
    plain = ReconSettings(**FAST, weigh_spacing=False, rho=0.02, lam=8e-4)
    weighed = replace(plain, weigh_spacing=True)
    as_published, as_usual, matched = (
        mbir.reconstruct(scan, prior=prior, settings=settings).volume.array
        for settings in (plain, weighed, replace(weighed, rho=0.02 / 16, lam=8e-4 / 4))
    )
    np.testing.assert_allclose(as_published, matched, atol=0.5)
    assert np.abs(as_published - as_usual).max() > 5
