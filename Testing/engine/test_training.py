"""Training: schedules, steps, resuming after a kill, several processes, and what goes wrong."""

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
from DiffusionMBIRLib.models import read_card, sha256
from DiffusionMBIRLib.priors.checkpoints import load_prior
from DiffusionMBIRLib.priors.compact import CompactConfig, CompactUNet
from DiffusionMBIRLib.training import loop
from DiffusionMBIRLib.training.averages import average_of, snapshots
from DiffusionMBIRLib.training.base import Statistics, mean_loss
from DiffusionMBIRLib.training.held_out import edm_losses
from DiffusionMBIRLib.training.loop import Trainer, TrainSettings, train
from DiffusionMBIRLib.training.slices import NoisySteps, SliceSampler
from Testing.engine.training_toys import CT, stack, stacks, write_volumes

HERE = Path(__file__).resolve().parent
NETWORK = CompactConfig(widths=(8, 16), blocks=1, embedding=16, knows_pixels=True)
SETTINGS = TrainSettings(
    images=48, batch=4, size=16, warmup_images=8, held_out_images=4, learning_rate=2e-3, snapshot_images=16
)


def trainer(folder: Path, settings: TrainSettings = SETTINGS, **options) -> Trainer:
    fixed: dict[str, Any] = {"network": NETWORK, "value": CT, "model_id": "tiny", "device": torch.device("cpu")}
    return Trainer(stacks(), folder, settings=settings, **fixed | options)


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


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
        "samples.png", "snapshots", "split.json", "stats.jsonl", "tiny.safetensors", "training-state.pt"
    ]  # fmt: skip
    lines = [json.loads(line) for line in (output / "stats.jsonl").read_text().splitlines()]
    assert [line["images"] for line in lines] == list(range(4, 49, 4))
    for line in lines:
        assert line["held_out"] == pytest.approx(np.mean(list(line["per_sigma"].values())), abs=1e-4)
        assert math.isfinite(line["train"])
    card = read_card(path)
    assert (card.id, card.modality, card.licence, card.data) == ("tiny", "CT", "CC0", [{"name": "discs"}])
    assert card.training["train_patients"] == 2
    assert sorted(card.training["held_out_loss_per_pixel_mm"]) == ["0.5", "1"]
    assert "p1" not in card.to_json()  # names of patients stay in split.json
    assert json.loads((output / "split.json").read_text())["held_out_patients"] == ["p1"]
    assert card.sigma_min < 0.002 < 10 < card.sigma_max
    assert load_prior(path).denoise(torch.rand(1, 1, 20, 16), 0.1).shape == (1, 1, 20, 16)


def test_shapes_alone_need_no_volumes(tmp_path):
    settings = replace(SETTINGS, shapes=1.0, discs=0.5, images=32)
    network = replace(NETWORK, knows_pixels=False)
    path = train([], tmp_path / "a", settings=settings, network=network, model_id="shapes", device="cpu")
    card = read_card(path)
    assert card.training["images_seen"] == 32
    assert "pixel_spacings_mm" not in card.training
    where: dict[str, Any] = {"network": network, "value": CT, "model_id": "b", "device": torch.device("cpu")}
    other = Trainer([], tmp_path / "b", settings=settings, **where)
    assert not torch.equal(other.held_out.images[0], other.steps[0][0][0])
    with pytest.raises(InputError, match="--shapes 1"):
        train([], tmp_path / "d", settings=SETTINGS)


def test_loss_falls_on_a_toy_set(tmp_path):
    run = trainer(tmp_path, replace(SETTINGS, images=1200, batch=12, ema=0.9, save_minutes=60.0))
    before = mean_loss(run.evaluate())
    run.run()
    assert mean_loss(run.evaluate()) < 0.7 * before


def test_the_card_tells_whether_training_images_are_repeated(tmp_path):
    wide = [stack(f"p{k}", k, slices=4, size=80) for k in range(4)]
    run = Trainer(wide, tmp_path, network=NETWORK, value=CT, settings=replace(SETTINGS, images=8, size=64),
                  model_id="tiny", device=torch.device("cpu"))  # fmt: skip
    found = read_card(run.run()).training["memorisation"]
    assert found["pixel_mm"] in (1.0, 2.0)
    assert found["samples"] > 0
    assert found["held_out"] > 0
    assert 0 <= found["copies"] <= 1


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
    assert all(map(same, unbroken.averages.state(), resumed.averages.state()))
    kept = [snapshots(folder / "snapshots", until=12) for folder in (whole, broken)]
    assert list(kept[0]) == list(kept[1]) == [4, 8, 12]
    assert same(*(average_of(files, 0.08) for files in kept))
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
    assert same(second.network.state_dict(), load_prior(path, precision=torch.float32).network.state_dict())
    assert second.sigma_data == first.sigma_data
    assert read_card(second.run()).training["initial"] == {"id": "tiny", "sha256": sha256(path)}
    wider = CompactConfig(widths=(16, 16), blocks=1)
    with pytest.raises(InputError, match="its network is another than the one to train"):
        trainer(tmp_path / "c", network=wider, initial=path)


def test_a_lighter_network_imitates_the_prior_that_it_starts_from(tmp_path):
    for name in "abc":
        (tmp_path / name).mkdir()
    heavy = CompactConfig(widths=(8, 16), blocks=2, embedding=16)
    short = replace(SETTINGS, images=240, batch=8)
    path = trainer(tmp_path / "a", short, network=heavy).run()
    light = replace(heavy, light_levels=1, knows_pixels=True)
    options: dict[str, Any] = {"network": light, "initial": path, "model_id": "light"}
    run = trainer(tmp_path / "b", replace(short, teacher_images=240, ema=0.9), **options)
    teacher = CompactUNet(heavy)
    teacher.load_state_dict(load_prior(path, precision=torch.float32).network.state_dict())
    clean, sigma, noise, _ = run.steps[30]

    def distance() -> float:
        return float(edm_losses(run.ema, clean, sigma, noise, run.sigma_data, None, teacher).mean())

    before = distance()
    run.run()
    assert distance() < 0.5 * before
    assert trainer(tmp_path / "c", **options).teacher is None


def test_the_best_average_of_the_training_is_kept(tmp_path):
    run = trainer(tmp_path)
    path, last = run.run(), {k: v.clone() for k, v in run.ema.state_dict().items()}
    run.best = math.inf
    run._choose_average()
    training = read_card(path).training
    assert same(run.ema.state_dict(), last)
    losses = {}
    for width in loop.TRIED_WIDTHS:
        run.ema.load_state_dict(average_of(snapshots(tmp_path / "snapshots", until=12), width))
        losses[width] = mean_loss(run.evaluate())
    assert training["average_width"] == min(losses, key=lambda width: losses[width])
    assert run.best == pytest.approx(min(losses.values()))
    assert np.mean(list(training["held_out_loss"].values())) == pytest.approx(run.best)
    written = path.read_bytes()
    run._choose_average()  # none is better than the one that is there
    assert path.read_bytes() == written


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
    settings = replace(SETTINGS, images=24)
    for step in range(3):
        single.optimizer.zero_grad()
        for rank in (0, 1):
            drawn: dict[str, Any] = {"across": settings.across, "shapes": settings.shapes}
            sampler = SliceSampler(single.steps.sampler.stacks, size=16, value=CT, rank=rank, **drawn)
            clean, sigma, noise, pixel_mm = NoisySteps(sampler, settings, NETWORK.multiple)[step]
            with arithmetic(single.device, single.precision):
                loss = edm_losses(single.network, clean, sigma, noise, single.sigma_data, pixel_mm).mean()
            (loss / 2).backward()
        torch.nn.utils.clip_grad_norm_(single.network.parameters(), 1.0)
        single.optimizer.param_groups[0]["lr"] = settings.rate(8 * step)
        single.optimizer.step()
    expected = single.network.state_dict()
    wrong = sum(float((weights[0][k] - expected[k]).square().sum()) for k in expected)
    moved = sum(float((start[k] - expected[k]).square().sum()) for k in expected)
    assert wrong < 0.01 * moved
