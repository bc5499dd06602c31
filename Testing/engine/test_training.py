"""Training: data, batches, schedules, resuming after a kill, several processes, and what goes wrong."""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from DiffusionMBIRLib.devices import arithmetic
from DiffusionMBIRLib.errors import Cancelled, EngineError, InputError
from DiffusionMBIRLib.geometry import Grid
from DiffusionMBIRLib.models import MR_VALUE, ValueScale, read_card, sha256
from DiffusionMBIRLib.priors.checkpoints import load_prior
from DiffusionMBIRLib.priors.compact import CompactConfig
from DiffusionMBIRLib.training import loop
from DiffusionMBIRLib.training.base import Statistics
from DiffusionMBIRLib.training.loop import Trainer, TrainSettings, edm_loss, train
from DiffusionMBIRLib.training.memorisation import check_memorisation, nearest_distances
from DiffusionMBIRLib.training.slices import (
    NoisySteps,
    SliceSampler,
    Stack,
    find_volumes,
    fixed_images,
    load_stacks,
    patient_of,
    split_by_patient,
)
from DiffusionMBIRLib.volume import Volume

HERE = Path(__file__).resolve().parent
NETWORK = CompactConfig(widths=(8, 16), blocks=1, embedding=16)
SETTINGS = TrainSettings(images=48, batch=4, size=16, warmup_images=8, held_out_images=4, learning_rate=2e-3)
CT = ValueScale()


def discs(seed: int, slices: int = 5, size: int = 24) -> np.ndarray:
    """A body of soft tissue in air with an insert of another value, (slices, size, size) in HU."""
    generator = np.random.default_rng(seed)
    r, c = np.mgrid[:size, :size] - (size - 1) / 2
    volume = np.full((slices, size, size), -1000.0, dtype=np.float32)
    for k in range(slices):
        volume[k][np.hypot(r, c) < generator.uniform(7, 11)] = generator.uniform(0, 80)
        volume[k][np.hypot(r - generator.uniform(-4, 4), c) < 3] = generator.uniform(-800, 900)
    return volume


def stack(patient: str, seed: int = 0, slices: int = 5, size: int = 24) -> Stack:
    full = torch.from_numpy((discs(seed, slices, size) + 1000) / 2000)
    half = torch.nn.functional.avg_pool2d(full[:, None], 2)[:, 0]
    return Stack(patient, f"{patient}.nrrd", 1.0, [full.half(), half.half()])


def stacks(count: int = 4) -> list[Stack]:
    return [stack(f"p{k}", k) for k in range(count)]


def write_volumes(folder: Path, count: int = 3, suffix: str = ".nrrd") -> Path:
    folder.mkdir(exist_ok=True)
    for k in range(count):
        array = discs(k).astype(np.int16)
        Volume(array, Grid(array.shape, (0.8, 0.8, 2.0))).save(folder / f"p{k}_scan{suffix}")
    return folder


def trainer(folder: Path, settings: TrainSettings = SETTINGS, **options) -> Trainer:
    fixed: dict[str, Any] = {"network": NETWORK, "value": CT, "model_id": "tiny", "device": torch.device("cpu")}
    return Trainer(stacks(), folder, settings=settings, **fixed | options)


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


# --- data


def test_finds_every_kind_of_volume_once(tmp_path):
    write_volumes(tmp_path / "a", 2)
    write_volumes(tmp_path / "a", 1, ".nii.gz")
    series = tmp_path / "a" / "1.2.840.1"
    series.mkdir()
    for k in range(3):
        (series / f"I{k:04d}").write_bytes(bytes(128) + b"DICM" + bytes(8))
    (tmp_path / "a" / "with-suffix").mkdir()
    (tmp_path / "a" / "with-suffix" / "1.dcm").write_bytes(b"old export")
    for other in ("notes.txt", "DICOMDIR", ".hidden.nrrd"):
        (tmp_path / "a" / other).write_bytes(bytes(128) + b"DICM" if other == "DICOMDIR" else b"text")
    found = find_volumes([tmp_path / "a", tmp_path / "a" / "p0_scan.nrrd", tmp_path], "*")
    names = [p.relative_to(tmp_path / "a").as_posix() for p in found]
    assert names == ["p0_scan.nii.gz", "p0_scan.nrrd", "p1_scan.nrrd", "1.2.840.1", "with-suffix"]
    assert [p.name for p in find_volumes([tmp_path], "p1*")] == ["p1_scan.nrrd"]
    assert patient_of(series, None) == "1.2.840.1"


def test_folders_without_volumes_are_named(tmp_path):
    with pytest.raises(InputError, match=r"no volume found that fits '\*\.mha'"):
        find_volumes([tmp_path], "*.mha")
    with pytest.raises(InputError, match="nowhere"):
        find_volumes([tmp_path / "nowhere"], "*")


def test_patients_from_names_and_paths():
    assert patient_of(Path("x/A12_left.nii.gz"), None) == "A12_left"
    assert patient_of(Path("x/A12_left.nii.gz"), r"^(A\d+)_") == "A12"
    assert patient_of(Path("x/B7/ct.nii.gz"), r"B\d") == "B7"
    with pytest.raises(InputError, match="does not match"):
        patient_of(Path("x/ct.nrrd"), r"Q\d")
    with pytest.raises(InputError, match="no regular expression"):
        patient_of(Path("x/ct.nrrd"), "(")


@pytest.mark.parametrize("suffix", [".nrrd", ".nii", ".nii.gz", ".mha"])
def test_stack_from_a_file(tmp_path, suffix):
    array = discs(0).astype(np.int16)
    array[0, 0, :3] = (-3024, -1010, 4000)
    path = tmp_path / f"p1{suffix}"
    Volume(array, Grid(array.shape, (0.7, 0.7, 2.0))).save(path)
    loaded = load_stacks(path, None, CT)[0]
    assert loaded.patient == "p1"
    assert loaded.spacing_mm == pytest.approx(0.7)
    assert [tuple(level.shape) for level in loaded.levels] == [(5, 24, 24), (5, 12, 12)]
    assert loaded.levels[0][0, 0, :3].tolist() == pytest.approx([0.0, -0.005, 2.0355], abs=1e-3)


def test_stack_in_another_unit_is_not_clipped_as_hounsfield(tmp_path):
    array = np.full((2, 16, 16), 5000, dtype=np.int16)
    Volume(array, Grid(array.shape)).save(tmp_path / "m.nrrd")
    assert float(load_stacks(tmp_path / "m.nrrd", None, ValueScale(0.0, 5000.0, "a.u."))[0].levels[0].max()) == 1.0


def test_mr_counts_in_multiples_of_its_percentile(tmp_path):
    array = np.random.default_rng(0).gamma(2.0, 100.0, (20, 32, 24)).astype(np.float32)
    for gain in (1.0, 37.0):
        Volume(array * gain, Grid(array.shape, (1.0, 1.0, 3.0)), unit="").save(tmp_path / "m.nrrd")
        (loaded,) = load_stacks(tmp_path / "m.nrrd", None, MR_VALUE)
        values = loaded.levels[0].float().numpy()
        assert np.percentile(values, 99.5) == pytest.approx(1.0, abs=0.01)
        assert np.corrcoef(values.ravel(), array.ravel())[0, 1] > 0.999
    Volume(np.zeros((20, 32, 24), np.float32), Grid((20, 32, 24))).save(tmp_path / "void.nrrd")
    with pytest.raises(InputError, match=r"void\.nrrd: nearly all voxels are zero"):
        load_stacks(tmp_path / "void.nrrd", None, MR_VALUE)


@pytest.mark.parametrize(
    ("spacing_mm", "planes"),
    [
        ((1.0, 1.0, 1.1), [(20, 32, 24), (32, 20, 24), (24, 20, 32)]),
        ((1.0, 1.0, 3.0), [(20, 32, 24)]),
        ((3.0, 1.0, 1.0), [(24, 20, 32)]),  # acquired sagittally
    ],
)
def test_mr_is_cut_in_the_planes_that_were_acquired(tmp_path, spacing_mm, planes):
    array = np.random.default_rng(0).random((20, 32, 24), np.float32)
    Volume(array, Grid(array.shape, spacing_mm), unit="").save(tmp_path / "m.nrrd")
    loaded = load_stacks(tmp_path / "m.nrrd", None, MR_VALUE)
    assert [tuple(stack.levels[0].shape) for stack in loaded] == planes


def test_images_without_a_unit_vary_in_brightness_and_are_turned():
    bright = torch.zeros(1, 16, 16)
    bright[:, :8] = 1.0  # the upper half
    stack = Stack("p", "p", 1.0, [bright.half(), bright.half()])
    images = SliceSampler([stack], size=16, value=MR_VALUE).batch(0, 64)
    tops = images.amax(dim=(1, 2, 3))
    assert float(tops.min()) < 0.9 < 1.1 < float(tops.max())
    leftmost = (images[:, 0, :, 0] > 0).float().mean(dim=1)
    assert set(np.round(leftmost[(images[:, 0, 0, 0] > 0)].numpy(), 1)) >= {0.5, 1.0}
    plain = SliceSampler([stack], size=16, value=MR_VALUE, augment=False).batch(0, 8)
    assert torch.equal(plain, bright.expand(8, 1, 16, 16))


def test_bad_volumes_are_named(tmp_path):
    (tmp_path / "broken.nrrd").write_bytes(b"NRRD0004\n")
    with pytest.raises(InputError, match=r"broken\.nrrd"):
        load_stacks(tmp_path / "broken.nrrd", None, CT)
    Volume(np.zeros((4, 8, 30), np.float32), Grid((4, 8, 30))).save(tmp_path / "small.nrrd")
    with pytest.raises(InputError, match=r"small\.nrrd.*8 x 30"):
        load_stacks(tmp_path / "small.nrrd", None, CT)


def test_split_never_mixes_patients():
    many = [stack(f"p{k % 7}", k, slices=1) for k in range(20)]
    for chosen, fraction in (((), 0.15), ((), 0.5), (("p0", "p3"), 0.15)):
        learn, rest = split_by_patient(many, chosen, fraction)
        assert len(learn) + len(rest) == 20
        assert not {s.patient for s in learn} & {s.patient for s in rest}
        if chosen:
            assert {s.patient for s in rest} == set(chosen)
    with pytest.raises(InputError, match=r"'p9' is not a patient; patients: p0, p1"):
        split_by_patient(many, ["p9"], 0.15)
    with pytest.raises(InputError, match="1 patient"):
        split_by_patient([stack("p0"), stack("p0")], [], 0.15)


def test_batches_depend_on_seed_rank_and_step_alone():
    def sampler(seed=0, rank=0):
        return SliceSampler(stacks(), size=16, value=CT, seed=seed, rank=rank)

    later = sampler()
    later.batch(3, 4)
    assert torch.equal(sampler().batch(7, 6), later.batch(7, 6))
    for other in (sampler(seed=1).batch(7, 6), sampler(rank=1).batch(7, 6), sampler().batch(8, 6)):
        assert not torch.equal(sampler().batch(7, 6), other)
    batch = sampler().batch(0, 40)
    assert batch.shape == (40, 1, 16, 16)
    assert batch.dtype == torch.float32
    assert -0.02 <= float(batch.min()) <= float(batch.max()) <= 1.0
    first, again = NoisySteps(sampler(), SETTINGS)[5], NoisySteps(sampler(), SETTINGS)[5]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_small_images_are_set_into_air():
    images = SliceSampler([stack("p", size=16)], size=32, value=CT, augment=False).batch(0, 8)
    assert torch.all(images[:, :, :8] == 0)
    held = fixed_images([stack("p", size=16)], size=32, value=CT, count=4)
    assert held.shape == (4, 1, 32, 32)
    assert torch.all(held[:, :, :8] == 0)
    assert len(fixed_images(stacks(6), size=16, value=CT, count=5)) == 5


# --- settings


def test_schedules():
    flat = TrainSettings(images=1000, warmup_images=100, learning_rate=1.0, decay_fraction=0.2)
    assert flat.rate(0) == pytest.approx(0.01)
    assert flat.rate(500) == 1.0
    assert flat.rate(900) == pytest.approx(0.5)
    assert flat.rate(1000) == 0.0
    cosine = replace(flat, schedule="cosine", warmup_images=0)
    assert [cosine.rate(n) for n in (0, 500, 1000)] == pytest.approx([1.0, 0.5, 0.0])
    rates = [cosine.rate(n) for n in range(0, 1001, 50)]
    assert rates == sorted(rates, reverse=True)
    assert replace(flat, decay_fraction=0.0).rate(999) == 1.0


@pytest.mark.parametrize("change", [{"schedule": "linear"}, {"batch": 0}, {"ema": 2}, {"seed": -1}, {"size": "128"}])
def test_settings_name_what_is_wrong(change):
    with pytest.raises(InputError, match=next(iter(change))):
        TrainSettings(**change)


def test_size_must_fit_the_network(tmp_path):
    with pytest.raises(InputError, match="multiple of 4"):
        trainer(tmp_path, replace(SETTINGS, size=18))


# --- the loop


@pytest.mark.slow
def test_a_run_from_files(tmp_path):
    folder, output = write_volumes(tmp_path / "data"), tmp_path / "out"
    before = torch.random.get_rng_state()
    path = train(
        [folder],
        output,
        settings=replace(SETTINGS, save_minutes=0.0),
        patient_regex="^(p.)_",
        hold_out=["p1"],
        network=NETWORK,
        model_id="tiny",
        licence="CC0",
        data=[{"name": "discs"}],
        device="cpu",
    )
    assert torch.equal(torch.random.get_rng_state(), before)  # no global state was touched
    assert path == output / "tiny.safetensors"
    assert sorted(p.name for p in output.iterdir()) == [
        "samples.png", "split.json", "stats.jsonl", "tiny.safetensors", "training-state.pt"
    ]  # fmt: skip
    lines = [json.loads(line) for line in (output / "stats.jsonl").read_text().splitlines()]
    assert [line["images"] for line in lines] == list(range(4, 49, 4))
    for line in lines:
        assert line["held_out"] == pytest.approx(np.mean(list(line["per_sigma"].values())), abs=1e-4)
        assert math.isfinite(line["train"])
    card = read_card(path)
    assert (card.id, card.modality, card.licence, card.data) == ("tiny", "CT", "CC0", [{"name": "discs"}])
    assert card.training["train_patients"] == 2
    assert "p1" not in card.to_json()  # names of patients stay in split.json
    assert json.loads((output / "split.json").read_text())["held_out_patients"] == ["p1"]
    assert card.sigma_min < 0.002 < 10 < card.sigma_max
    assert load_prior(path).denoise(torch.rand(1, 1, 20, 16), 0.1).shape == (1, 1, 20, 16)


def test_loss_falls_on_a_toy_set(tmp_path):
    run = trainer(tmp_path, replace(SETTINGS, images=1200, batch=12, ema=0.9, save_minutes=60.0))
    before = np.mean(list(run.evaluate().values()))
    run.run()
    after = np.mean(list(run.evaluate().values()))
    assert after < 0.7 * before


def test_held_out_loss_has_no_chance_in_it(tmp_path):
    run = trainer(tmp_path)
    assert run.evaluate() == run.evaluate()


def test_workers_prepare_the_same_batches(tmp_path):
    alone, helped = trainer(tmp_path / "a"), trainer(tmp_path / "b", replace(SETTINGS, workers=1))
    for run in (alone, helped):
        run.folder.mkdir()
        run.run()
    assert same(alone.network.state_dict(), helped.network.state_dict())


def killed_run(folder: str) -> None:
    """In a process of its own: train, and be killed while the eighth state lies written but not yet in place."""
    saved = []
    rename = os.replace

    def replace_or_die(source, target):
        saved.append(str(target).endswith("training-state.pt"))
        if sum(saved) == 8:
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
        rename(source, target)

    os.replace = replace_or_die  # type: ignore[assignment]
    trainer(Path(folder), resumable()).run()


def resumable() -> TrainSettings:
    return replace(SETTINGS, save_minutes=0.0)


def in_process(call: str, **environment: str) -> subprocess.Popen:
    code = f"import sys; sys.path[:0] = [{str(HERE.parents[1])!r}, {str(HERE)!r}]; import test_training as t; t.{call}"
    return subprocess.Popen([sys.executable, "-c", code], env=os.environ | environment, stderr=subprocess.PIPE)


@pytest.mark.slow
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_a_killed_run_resumes_bit_for_bit(tmp_path, dropout, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "NETWORK", replace(NETWORK, dropout=dropout))
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    process = in_process(f"NETWORK = t.replace(t.NETWORK, dropout={dropout}); t.killed_run({str(broken)!r})")
    process.communicate(timeout=120)
    assert process.returncode != 0
    unbroken, resumed = trainer(whole, resumable()), trainer(broken, resumable())
    assert resumed.seen == 28
    with (broken / "stats.jsonl").open("a") as stream:
        stream.write('{"images": 32, "sec')  # as if killed within a line
    resumed = trainer(broken, resumable())
    for run in (unbroken, resumed):
        run.run()
    assert same(unbroken.network.state_dict(), resumed.network.state_dict())
    assert same(unbroken.ema.state_dict(), resumed.ema.state_dict())
    read = [[json.loads(x) for x in (f / "stats.jsonl").read_text().splitlines()] for f in (whole, broken)]
    assert [x["held_out"] for x in read[0]] == [x["held_out"] for x in read[1]]
    assert [x["images"] for x in read[1]] == list(range(4, 49, 4))


def test_a_cancelled_run_keeps_its_state(tmp_path):
    class Impatient:
        def tick(self, stage, done, total, **metrics):
            raise Cancelled

        def preview(self, volume, step):
            return None

    with pytest.raises(Cancelled):
        trainer(tmp_path, replace(SETTINGS, save_minutes=60.0), monitor=Impatient()).run()
    resumed = trainer(tmp_path)
    assert resumed.seen == 4
    assert resumed.run() == tmp_path / "tiny.safetensors"
    assert trainer(tmp_path).run() == tmp_path / "tiny.safetensors"  # already finished: nothing left to do


def test_statistics_from_after_the_state_are_dropped(tmp_path):
    statistics = Statistics(tmp_path / "stats.jsonl")
    statistics.trim((1, 0))  # there are none yet
    done = [(1, 8), (1, 16), (2, 8), (2, 16)]
    for stage, images in done:
        statistics.append({"stage": stage, "images": images})
    with statistics.path.open("a") as stream:
        stream.write('{"stage": 2, "ima')
    for state, left in (((2, 8), done[:3]), ((2, 0), done[:2]), ((1, 8), done[:1])):
        statistics.trim(state)
        lines = [json.loads(line) for line in statistics.path.read_text().splitlines()]
        assert [(line["stage"], line["images"]) for line in lines] == left


def test_training_may_start_from_another_prior(tmp_path):
    for name in "abc":
        (tmp_path / name).mkdir()
    first = trainer(tmp_path / "a")
    path = first.run()
    second = trainer(tmp_path / "b", model_id="second", initial=path)
    assert same(second.network.state_dict(), {k: v.half().float() for k, v in first.ema.state_dict().items()})
    assert read_card(second.run()).training["initial"] == {"id": "tiny", "sha256": sha256(path)}
    wider = CompactConfig(widths=(16, 16), blocks=1)
    with pytest.raises(InputError, match="its network is another than the one to train"):
        trainer(tmp_path / "c", network=wider, initial=path)


def test_states_that_do_not_fit_are_named(tmp_path):
    trainer(tmp_path).run()
    with pytest.raises(InputError, match=r"training-state\.pt: holds another network"):
        trainer(tmp_path, network=replace(NETWORK, widths=(8, 24)))
    content = (tmp_path / "training-state.pt").read_bytes()
    for length in (0, 100, len(content) // 2):
        (tmp_path / "training-state.pt").write_bytes(content[:length])
        with pytest.raises(InputError, match=r"training-state\.pt: is damaged"):
            trainer(tmp_path)


def test_divergence_keeps_the_last_state(tmp_path):
    run = trainer(tmp_path)
    with torch.no_grad():
        run.ema.head.weight.fill_(math.nan)
    with pytest.raises(EngineError, match="diverged"):
        run.run()
    assert not (tmp_path / "training-state.pt").exists()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"model_id": "../x"}, "model_id"),
        ({"hold_out": ["nobody"]}, "nobody"),
        ({"glob": "*.mha"}, "no volume"),
        ({"patient_regex": "zz"}, "does not match"),
        ({"device": "cuda:99"}, "device 'cuda:99' is not there"),
    ],
)
def test_bad_requests_are_named(tmp_path, options, reason):
    folder = write_volumes(tmp_path / "data", 2)
    with pytest.raises(InputError, match=reason):
        train([folder], tmp_path / "out", settings=SETTINGS, network=NETWORK, **options)


def test_one_patient_is_not_enough(tmp_path):
    with pytest.raises(InputError, match="1 patient"):
        train([write_volumes(tmp_path / "data", 1)], tmp_path / "out", settings=SETTINGS, network=NETWORK, device="cpu")


# --- several processes


def one_of_two(folder: str) -> None:
    """In a process of its own, as torchrun would start it."""
    output = Path(folder) / f"rank{os.environ['RANK']}"
    with loop._process_group(torch.device("cpu")):
        output.mkdir()
        run = trainer(output, replace(SETTINGS, images=24))
        run.run()
    torch.save(run.network.state_dict(), Path(folder) / f"weights{os.environ['RANK']}.pt")


@pytest.mark.slow
def test_two_processes_average_their_gradients(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    processes = [in_process(f"one_of_two({str(tmp_path)!r})", RANK=str(k), LOCAL_RANK=str(k), **shared) for k in (0, 1)]
    for process in processes:
        _, errors = process.communicate(timeout=180)
        assert process.returncode == 0, errors.decode()
    weights = [torch.load(tmp_path / f"weights{k}.pt", weights_only=True) for k in (0, 1)]
    assert same(*weights)
    assert (tmp_path / "rank0" / "tiny.safetensors").is_file()
    assert not list((tmp_path / "rank1").iterdir())  # only the first process writes

    single = trainer(tmp_path)
    start = {k: v.clone() for k, v in single.network.state_dict().items()}
    train_stacks = single.sampler.stacks
    settings = replace(SETTINGS, images=24)
    for step in range(3):
        single.optimizer.zero_grad()
        for rank in (0, 1):
            sampler = SliceSampler(train_stacks, size=16, value=CT, rank=rank)
            clean, sigma, noise = NoisySteps(sampler, settings)[step]
            with arithmetic(single.device, single.precision):
                loss = edm_loss(single.network, clean, sigma, noise, single.sigma_data)
            (loss / 2).backward()
        torch.nn.utils.clip_grad_norm_(single.network.parameters(), 1.0)
        single.optimizer.param_groups[0]["lr"] = settings.rate(8 * step)
        single.optimizer.step()
    expected = single.network.state_dict()
    wrong = sum(float((weights[0][k] - expected[k]).square().sum()) for k in expected)
    moved = sum(float((start[k] - expected[k]).square().sum()) for k in expected)
    assert wrong < 0.01 * moved


# --- memorisation


def test_memorisation_tells_copies_from_new_images():
    known, unseen = [stack(f"p{k}", k, slices=20, size=64) for k in range(3)], [stack("q", 9, slices=20, size=64)]
    copies = known[1].levels[1][3:9, None].float()
    found = check_memorisation(copies.flip(-1) + 1e-3 * torch.randn(copies.shape), unseen, known)
    assert found.ratio < 0.1
    assert found.copies == 1.0
    fresh = check_memorisation(stack("r", 10, slices=20, size=64).levels[1][:, None], unseen, known)
    assert 0.3 < fresh.ratio < 3
    assert fresh.copies < 0.5
    assert nearest_distances(copies[:1] + 0.5, known[1:2]) == pytest.approx(0.5, abs=0.25)
    with pytest.raises(InputError, match="at least one sample"):
        check_memorisation(copies[:0], unseen, known)
    with pytest.raises(InputError, match="no training slice"):
        nearest_distances(copies, [])
