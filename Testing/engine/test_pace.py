"""The pace of this machine: measured once for each device, prior and precision, remembered, and followed."""

import json
import time
from dataclasses import replace

import pytest
import torch

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib import pace
from DiffusionMBIRLib.config import ReconSettings
from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.estimate import CLEAR, duration, estimate, stages
from DiffusionMBIRLib.jobs.messages import Finished
from DiffusionMBIRLib.pace import estimate_of, measure_network, measure_solver, pace_of, place_of
from DiffusionMBIRLib.priors.checkpoints import load_prior
from DiffusionMBIRLib.rates import Pace, Place, known_pace, machine_key, note
from DiffusionMBIRLib.tasks import MR_TASK, SPARSE_VIEW
from Testing.engine.helpers import body
from Testing.engine.jobs_helpers import new_job, run_here, small_prior

CPU = torch.device("cpu")
HERE = Place(machine_key(threads=2, torch_version="2.9"), "cpu")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    return tmp_path


def known(settings, *, place=HERE, task=SPARSE_VIEW) -> Pace:
    return known_pace(place, settings, task)


def test_rates_are_kept_and_damage_is_forgiven(folder):
    settings = ReconSettings(prior="a")
    key = HERE.network_key(settings)
    assert known(settings) == Pace()
    note(key, 2e-7)
    note(key, 4e-7)
    assert known(settings).network == pytest.approx(3e-7)
    path = folder / "DiffusionMBIR" / "rates.json"
    for text in (
        "{",
        "[]",
        json.dumps({key: "fast"}),
        json.dumps({key: -1.0}),
        json.dumps({key: [[1], "x", None]}),
        "[" * 100000,
        json.dumps({key: 10**400}),
    ):
        path.write_text(text)
        assert known(settings) == Pace()
    note(key, 1e-7)
    assert known(settings).network == 1e-7
    assert [p.name for p in path.parent.iterdir()] == ["rates.json"]


def test_one_run_on_a_busy_machine_changes_little(folder):
    settings, pixels = ReconSettings(prior="a", method="fbp"), 128 * 128
    key = HERE.solver_key(SPARSE_VIEW)
    for seconds in (1e-9, 1.1e-9, 3e-8, 1e-9, 1.05e-9):
        note(key, seconds, pixels)
    found = known_pace(HERE, settings, SPARSE_VIEW, pixels)
    assert found.solver == pytest.approx(1.05e-9)
    assert found.doubt < CLEAR
    for _ in range(20):
        note(key, 2e-9, pixels)
    assert known_pace(HERE, settings, SPARSE_VIEW, pixels).solver == 2e-9  # the newest count
    assert all(len(seen) <= 7 for seen in json.loads((folder / "DiffusionMBIR" / "rates.json").read_text()).values())


def test_slices_of_another_size_have_a_pace_of_their_own_and_the_first_is_in_doubt(folder):
    settings, key = ReconSettings(method="fbp"), HERE.solver_key(SPARSE_VIEW)
    note(key, 1e-9)  # as it is measured before the first run
    assert known_pace(HERE, settings, SPARSE_VIEW, 512**2) == Pace(None, 1e-9)
    assert known_pace(HERE, settings, SPARSE_VIEW, 512**2).doubt == 1.6
    note(key, 3e-9, 500 * 520)
    assert known_pace(HERE, settings, SPARSE_VIEW, 512**2).solver == 3e-9
    assert known_pace(HERE, settings, SPARSE_VIEW, 64**2).solver == 2e-9  # of all that is known
    doubts = [known_pace(HERE, settings, SPARSE_VIEW, 512**2).doubt]
    for _ in range(4):
        note(key, 3.1e-9, 512**2)
        doubts.append(known_pace(HERE, settings, SPARSE_VIEW, 512**2).doubt)
    assert doubts == sorted(doubts, reverse=True)
    assert doubts[-1] < CLEAR < doubts[0] + 1e-9


def test_an_estimate_counts_start_and_simulation_and_is_a_range_while_it_is_not_sure(folder):
    pace = Pace(None, 1e-9, start_s=8.0, doubt=1.6)
    settings, shape = ReconSettings(method="fbp"), (40, 256, 256)
    measured = estimate(shape, settings, SPARSE_VIEW, pace=pace)
    simulated = estimate(shape, settings, SPARSE_VIEW, pace=pace, simulated=True)
    parts = stages(shape, settings, SPARSE_VIEW, pace=pace, simulated=True)
    assert measured.seconds is not None
    assert simulated.seconds is not None
    assert simulated.seconds == pytest.approx(8 + sum(parts.values()))
    assert simulated.seconds - measured.seconds == pytest.approx(parts["simulate"])
    assert simulated.between == pytest.approx((simulated.seconds / 1.6, simulated.seconds * 1.6))
    assert " to " in simulated.text
    sure = estimate(shape, settings, SPARSE_VIEW, pace=replace(pace, doubt=1.1))
    assert sure.between is None
    assert f"about {duration(sure.seconds)} on" in sure.text


def test_a_job_notes_how_long_it_took_to_start_and_to_compute(folder, tmp_path):
    last, _events = run_here(new_job(tmp_path, body((4, 32, 32)), method="admm-tv", tv_sweeps=40))
    assert isinstance(last, Finished)
    keys = list(json.loads((folder / "DiffusionMBIR" / "rates.json").read_text()))
    assert sum(key.endswith("|start") for key in keys) == 1
    assert sum(key.endswith("CT solver|32 squared") for key in keys) == 1


def test_a_pace_is_of_one_machine_device_prior_and_precision(folder):
    settings = ReconSettings(prior="a", precision="float32")
    note(HERE.network_key(settings), 1e-7)
    note(HERE.solver_key(SPARSE_VIEW), 1e-9)
    assert known(settings) == Pace(1e-7, 1e-9)
    assert known(replace(settings, precision="bfloat16")).network is None
    assert known(replace(settings, prior="b")).network is None
    assert known(replace(settings, compile=True)).network is None
    assert known(replace(settings, method="fbp")) == Pace(None, 1e-9)
    assert known(settings, task=MR_TASK).solver is None
    other_threads = Place(machine_key(threads=4, torch_version="2.9"), "cpu")
    for place in (Place(HERE.machine, "NVIDIA H200"), other_threads):
        assert known(settings, place=place) == Pace()


def test_the_path_of_a_prior_is_not_kept(folder):
    for name in ("/somewhere/of/mine.safetensors", "C:\\somewhere\\mine.safetensors"):
        note(HERE.network_key(ReconSettings(prior=name)), 1e-7)
        assert known(ReconSettings(prior=name)).network == 1e-7
    assert "somewhere" not in (folder / "DiffusionMBIR" / "rates.json").read_text()


def test_a_folder_that_cannot_be_written_to_is_left_alone(folder):
    (folder / "DiffusionMBIR").write_text("a file in the folder's place")
    note(HERE.solver_key(SPARSE_VIEW), 1e-9)
    assert known(ReconSettings()) == Pace()


@pytest.mark.parametrize("task", [SPARSE_VIEW, MR_TASK])
def test_what_was_measured_is_not_measured_again(folder, task):
    prior = small_prior(folder, modality="MR" if task == MR_TASK else "CT")
    settings = ReconSettings(prior=str(prior))
    first = pace_of(settings, task, CPU)
    assert first.network is not None
    assert first.solver is not None
    assert min(first.network, first.solver) > 0
    prior.unlink()  # nobody opens it
    assert pace_of(settings, task, CPU) == first == known(settings, place=place_of(CPU), task=task)
    with pytest.raises(InputError, match="small"):
        pace_of(replace(settings, precision="float32"), task, CPU)


def test_a_method_without_a_network_needs_no_prior(folder):
    found = pace_of(ReconSettings(method="fbp", prior="nowhere"), SPARSE_VIEW, CPU)
    assert found.network is None
    assert found.solver is not None


def test_measuring_leaves_random_numbers_and_threads_alone(folder):
    prior, threads = load_prior(small_prior(folder)), torch.get_num_threads()
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    measure_network(prior, CPU)
    measure_solver(SPARSE_VIEW, CPU)
    assert torch.equal(torch.rand(4), expected)
    assert torch.get_num_threads() == threads


def test_a_measurement_brings_its_size(folder):
    scan = mbir.simulate(body((4, 32, 32)), views=8)
    settings = ReconSettings(prior=str(small_prior(folder)))
    found = estimate_of(scan, settings, CPU)
    assert found.text.startswith("32 x 32 x 4, needs ")
    assert found.seconds is not None
    assert found.seconds > 0


def test_another_program_that_takes_the_processor_for_a_moment_is_not_counted(monkeypatch):
    """Of three calls at least the quickest one counts."""
    clock, calls = [0.0], iter((9.0, 1.5, 0.1, 0.12, 0.1, 0.1))  # the first one warms up
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    def call() -> None:
        clock[0] += next(calls)

    assert pace._timed(call, CPU) == pytest.approx(0.1)
