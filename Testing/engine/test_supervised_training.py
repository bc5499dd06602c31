"""Training of the supervised baselines: pairs, stages, resuming, the command, and what goes wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from DiffusionMBIRLib.cli import main
from DiffusionMBIRLib.errors import Cancelled, EngineError, InputError
from DiffusionMBIRLib.geometry import Grid
from DiffusionMBIRLib.models import read_card
from DiffusionMBIRLib.monitor import Silent
from DiffusionMBIRLib.operators import projector
from DiffusionMBIRLib.simulation import simulate
from DiffusionMBIRLib.supervised import pairs as pairs_module
from DiffusionMBIRLib.supervised.methods import load_network
from DiffusionMBIRLib.supervised.networks import SupervisedConfig
from DiffusionMBIRLib.supervised.pairs import Pairs, PairSettings, Protocol, problem_of, scan, whole_slice
from DiffusionMBIRLib.supervised.training import SupervisedTrainer
from DiffusionMBIRLib.tasks import CT_TASKS
from DiffusionMBIRLib.training.settings import TrainSettings
from DiffusionMBIRLib.training.stacks import Stack
from DiffusionMBIRLib.volume import Volume
from Testing.engine.helpers import body

SPARSE, LIMITED = CT_TASKS
SETTINGS = TrainSettings(images=64, batch=4, warmup_images=8, learning_rate=3e-3, ema=0.9)
PAIRS = PairSettings(blocks=3, images=8, size=16)
SMALL = {"widths": (8, 12), "blocks": 1}
HU = torch.tensor(2000.0)


def stack(patient: str, seed: int, size: int = 64) -> Stack:
    """Bodies in air with an insert of another density, no two alike."""
    generator = np.random.default_rng(seed)
    r, c = np.mgrid[:size, :size] - (size - 1) / 2
    slices = []
    for _ in range(5):
        image = np.where(np.hypot(r / generator.uniform(0.5, 0.9), c) < 0.45 * size, 0.5, 0.0)
        places = [np.hypot(r - generator.uniform(-8, 8), c - generator.uniform(-8, 8)) for _ in range(3)]
        for place in places:
            image[place < generator.uniform(2, 5)] = generator.uniform(0.1, 1.0)
        slices.append(image)
    full = torch.from_numpy(np.array(slices, np.float32))
    half = torch.nn.functional.avg_pool2d(full[:, None], 2)[:, 0]
    return Stack(patient, f"{patient}.nrrd", 1.0, [full.half(), half.half()])


STACKS = [stack(f"p{k}", k) for k in range(4)]


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> Path:
    """Simulated once for all tests; what is asked for decides which files count."""
    return tmp_path_factory.mktemp("scans")


def trainer(folder: Path, scans: Path, kind: str = "fbpconvnet", task: str = SPARSE, settings=SETTINGS, **options):
    fixed = {"pairs": PAIRS, "pairs_folder": scans, "model_id": "tiny", "device": torch.device("cpu")}
    network = SupervisedConfig(kind, task, **SMALL)
    return SupervisedTrainer(STACKS, folder, settings=settings, **{"network": network} | fixed | options)


def statistics(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "stats.jsonl").read_text().splitlines()]


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


# --- pairs


@pytest.mark.parametrize("coarsen", [1, 2])
def test_the_reconstructing_operator_never_makes_the_data(coarsen, monkeypatch):
    """Scans come through ``simulate``, off a finer grid and detector; the same operator would fit them to rounding."""
    seen = []

    def recorded(*arguments, **options):
        seen.append(options)
        return simulate(*arguments, **options)

    monkeypatch.setattr(pairs_module, "simulate", recorded)
    images = torch.stack([STACKS[0].levels[0][k].float() for k in range(2)])
    block = scan(images, Protocol(8, 180.0, coarsen=coarsen), SPARSE, seed=0)
    m = block.measurement
    assert [entry["coarsen"] for entry in seen] == [coarsen]
    assert m.grid.in_plane == (64 // coarsen, 64 // coarsen)
    assert block.truth.shape == block.fbp.shape == m.grid.shape
    attenuation = block.truth.float() * HU / 1000 * m.mu_water_per_mm
    own = projector(m.geometry, m.grid).forward(attenuation.contiguous())
    data = torch.from_numpy(np.ascontiguousarray(m.data))
    mismatch = float((own - data).norm() / data.norm())
    assert 3e-4 < mismatch < 0.03  # two discretisations of one object
    assert 0.05 < float((block.fbp - block.truth).float().norm() / block.truth.float().norm()) < 2


def test_pairs_have_the_value_scale_of_ct_and_of_reconstructions(tmp_path):
    block = Pairs(STACKS, tmp_path, SPARSE, replace(PAIRS, size=32), "training").fixed(3)[2]
    assert block.measurement.geometry.views == 8
    assert block.measurement.photons == 0
    problem = problem_of(block.measurement)
    assert problem.value.offset == -1000
    assert problem.value.scale == 2000
    assert 0.4 < float(block.truth.float().amax()) < 1.1  # soft tissue is 0.5
    x = block.truth.float()
    assert problem.residual(x) < 0.03  # the truth fits its data, so that the units agree


def damaged_header(content: bytes) -> bytes:
    """With a view angle that is a text."""
    assert content.count(b'\\"photons\\"') == 1
    return content.replace(b'\\"photons\\"', b'\\"photans\\"')


def damaged_length(content: bytes) -> bytes:
    return content[:-10]


def test_blocks_are_reproducible_varied_and_kept(tmp_path):
    protocols = [Protocol.draw(task, np.random.default_rng(k)) for task in CT_TASKS for k in range(60)]
    sparse, limited = protocols[:60], protocols[60:]
    assert {p.views for p in sparse} == {2, 4, 8, 12, 24, 36}
    assert {p.range_deg for p in sparse} == {180.0}
    assert all(p.views == p.range_deg and 60 <= p.views <= 130 for p in limited)
    assert {p.coarsen for p in sparse} == {1, 2}
    noisy = [p.photons for p in sparse if p.photons]
    assert 0 < len(noisy) < 60
    assert 1e5 <= min(noisy) < max(noisy) <= 1e6

    settings = replace(PAIRS, size=16)
    first = Pairs(STACKS, tmp_path / "a", SPARSE, settings, "training")
    made = [first.block(k) for k in range(2)]
    files = list((tmp_path / "a").iterdir())
    again = [Pairs(STACKS, tmp_path / folder, SPARSE, settings, "training").block(1) for folder in "ab"]
    for block in again:
        assert torch.equal(block.fbp, made[1].fbp)
        assert torch.equal(block.truth, made[1].truth)
        assert block.measurement.geometry == made[1].measurement.geometry
        np.testing.assert_array_equal(block.measurement.data, made[1].measurement.data)
    assert len(files) == 2
    (spoilt,) = (tmp_path / "b").iterdir()
    for damage in (damaged_header, damaged_length):
        whole = spoilt.read_bytes()
        spoilt.write_bytes(damage(whole))
        with pytest.raises(InputError, match=r"\.safetensors: is damaged \(.*; delete it"):
            Pairs(STACKS, tmp_path / "b", SPARSE, settings, "training").block(1)
        spoilt.write_bytes(whole)
    assert sorted((tmp_path / "a").iterdir()) == sorted(files)
    for other in (
        Pairs(STACKS[:2], tmp_path / "a", SPARSE, settings, "training"),
        Pairs(STACKS, tmp_path / "a", LIMITED, settings, "training"),
        Pairs(STACKS, tmp_path / "a", SPARSE, replace(settings, seed=1), "training"),
        Pairs(STACKS, tmp_path / "a", SPARSE, settings, "held out"),
    ):
        assert not torch.equal(other.block(0).truth, made[0].truth)


def test_whole_slices_keep_the_body_in_the_field_of_view():
    for seed in range(5):
        for side in (24, 64, 128):
            image = whole_slice(STACKS[0], 1, side, np.random.default_rng(seed))
            assert image.shape == (side, side)
            border = torch.cat([image[0], image[-1], image[:, 0], image[:, -1]])
            assert float(border.abs().mean()) < 0.02
            # its area is that of the body, up to the zoom
            share = float((image > 0.25).float().mean()) / float((STACKS[0].levels[0][1] > 0.25).float().mean())
            assert 1.25**-2 * 0.9 < share < 0.9**-2 * 1.1


# --- the loop


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "task"), [("fbpconvnet", SPARSE), ("lahiri", SPARSE), ("zhang", LIMITED)])
def test_networks_learn(kind, task, tmp_path, scans):
    settings = replace(SETTINGS, images=320 if kind == "lahiri" else 200)
    run = trainer(tmp_path, scans, kind, task, settings)
    held_out = run.held_out_pairs.fixed(8)
    before = run.error_left(held_out, [block.fbp for block in held_out])
    path = run.run()
    lines = statistics(tmp_path)
    assert [line["stage"] for line in lines] == ([1, 2] if kind == "lahiri" else [1])
    losses = [sum(before.values()) / 6, *(line["held_out"] for line in lines)]
    assert all(after < 0.8 * earlier for earlier, after in pairwise(losses))
    card = read_card(path)
    assert card.network["kind"] == kind
    assert card.training["images_seen"] == settings.images
    assert card.training["error_left_of_fbp"] == lines[-1]["per_geometry"]
    assert len(card.training["error_left_of_fbp"]) == 6
    assert "p0" not in card.to_json()
    loaded = load_network(str(path), kind, task, device=torch.device("cpu"))
    for name, weight in run.ema.state_dict().items():
        torch.testing.assert_close(loaded.network.state_dict()[name], weight.half().float())


def test_later_stages_see_what_earlier_ones_and_the_data_give(tmp_path, scans):
    run = trainer(tmp_path, scans, "lahiri")
    blocks = [run.pairs.block(0)]
    (before,) = run._inputs(blocks, "training")
    run.stage = 1
    (after,) = run._inputs(blocks, "training")
    problem = problem_of(blocks[0].measurement)
    assert torch.equal(before, blocks[0].fbp)
    if not blocks[0].measurement.photons:
        assert problem.residual(after.float()) < 0.5 * problem.residual(before.float())
    assert after.shape == before.shape


class Killer(Silent):
    """Cancels once, after so many training ticks."""

    def __init__(self, stage: str, done: int) -> None:
        self.stage, self.done = stage, done

    def tick(self, stage, done, total, **metrics):
        if stage == self.stage and done >= self.done:
            raise Cancelled("enough")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "stage", "done"), [("fbpconvnet", "train stage 1", 4), ("lahiri", "train stage 2", 32)]
)
def test_a_cancelled_run_gives_what_an_unbroken_one_does(kind, stage, done, tmp_path, scans):
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
    unbroken = trainer(tmp_path / "whole", scans, kind)
    unbroken.run()
    with pytest.raises(Cancelled):
        trainer(tmp_path / "broken", scans, kind, monitor=Killer(stage, done)).run()
    resumed = trainer(tmp_path / "broken", scans, kind)
    assert (resumed.stage, resumed.seen) != (0, 0)
    path = resumed.run()
    assert same(unbroken.ema.state_dict(), resumed.ema.state_dict())
    assert same(unbroken.network.state_dict(), resumed.network.state_dict())
    assert statistics(tmp_path / "whole")[-1]["held_out"] == statistics(tmp_path / "broken")[-1]["held_out"]
    assert trainer(tmp_path / "broken", scans, kind).run() == path  # already finished: nothing left to do
    assert len(statistics(tmp_path / "broken")) <= len(statistics(tmp_path / "whole")) + 1


def test_states_and_requests_that_do_not_fit_are_named(tmp_path, scans):
    trainer(tmp_path, scans).run()
    wider = SupervisedConfig("fbpconvnet", SPARSE, widths=(8, 16), blocks=1)
    with pytest.raises(InputError, match=r"training-state\.pt: holds another network"):
        trainer(tmp_path, scans, network=wider)
    content = (tmp_path / "training-state.pt").read_bytes()
    (tmp_path / "training-state.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"training-state\.pt: is damaged"):
        trainer(tmp_path, scans)
    with pytest.raises(InputError, match="setting size: 30 must be a multiple of 4"):
        trainer(tmp_path / "b", scans, pairs=replace(PAIRS, size=30))
    with pytest.raises(InputError, match="'nobody' is not a patient"):
        trainer(tmp_path / "b", scans, held_out=["nobody"])


def test_divergence_keeps_the_last_state(tmp_path, scans):
    run = trainer(tmp_path, scans)
    with torch.no_grad():
        run.ema.stages[0].unet.head.weight.fill_(torch.nan)
    with pytest.raises(EngineError, match="diverged"):
        run.run()
    assert not (tmp_path / "training-state.pt").exists()


# --- the command


def test_the_command_trains_and_the_result_reconstructs(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    for k in range(3):
        array = (STACKS[k].levels[0].float() * 2000 - 1000).numpy().astype(np.int16)
        Volume(array, Grid(array.shape, (2.0, 2.0, 3.0))).save(tmp_path / "data" / f"p{k}.nrrd")
    train = ["train", str(tmp_path / "data"), "--method", "lahiri", "-o", str(tmp_path / "out"), "--widths", "8", "12"]
    train += ["--blocks", "1", "--scans", "2", "--images", "32", "--batch", "4", "--size", "16", "--quiet", "--json"]
    assert main(train) == 0
    entries = json.loads(capsys.readouterr().out)
    assert entries["images_seen"] == 32
    assert Path(entries["output"]).name == "lahiri-sparse-view.safetensors"
    body((2, 32, 32)).save(tmp_path / "volume.nrrd")
    scan_file, recon = str(tmp_path / "scan.h5"), str(tmp_path / "r.nrrd")
    assert main(["simulate", str(tmp_path / "volume.nrrd"), "-o", scan_file, "--views", "8", "--quiet"]) == 0
    assert (
        main(["reconstruct", scan_file, "-o", recon, "--method", "lahiri", "--prior", entries["output"], "--quiet"])
        == 0
    )
    assert "nfe 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--method", "zhang", "--task", SPARSE], "zhang serves the task limited-angle-ct"),
        (["--method", "lahiri", "--modality", "MR"], "--modality MR does not fit --method lahiri"),
        (["--method", "lahiri", "--initial", "ct-compact-v1"], "--initial is for diffusion priors only"),
        (["--method", "fbpconvnet", "--id", "../x"], "id '../x'"),
    ],
)
def test_requests_that_cannot_be_are_named(options, reason, tmp_path, capsys):
    body((3, 32, 32)).save(tmp_path / "p0.nrrd")
    body((4, 32, 32)).save(tmp_path / "p1.nrrd")
    assert main(["train", str(tmp_path), "-o", str(tmp_path / "out"), "--quiet", *options]) == 2
    assert reason in capsys.readouterr().err
