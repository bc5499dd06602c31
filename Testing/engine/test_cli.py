"""The command line: what a program reads, and one clear line with the right exit code for whatever cannot be used."""

import json
import os
import re
import subprocess
import sys

import h5py
import numpy as np
import pytest
import torch

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.cli import main
from DiffusionMBIRLib.config import ReconSettings
from DiffusionMBIRLib.models import ModelCard, read_card
from DiffusionMBIRLib.priors.checkpoints import save_prior
from DiffusionMBIRLib.priors.compact import CompactConfig, CompactUNet
from Testing.engine.helpers import ROOT, body

FAST = ["--steps", "2", "--start-sweeps", "5", "--tv-sweeps", "5", "--quiet"]


@pytest.fixture(autouse=True)
def _own_models(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFUSIONMBIR_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "data"))


@pytest.fixture
def files(tmp_path):
    """A volume, a scan of it and a small prior."""
    volume = body()
    volume.save(tmp_path / "volume.nrrd")
    mbir.write(mbir.simulate(volume, views=8), tmp_path / "scan.h5")
    write_prior(tmp_path / "prior.safetensors", modality="CT")
    return tmp_path


def write_prior(path, *, modality):
    torch.manual_seed(0)
    network = CompactUNet(CompactConfig(widths=(8, 8), blocks=1))
    save_prior(network, ModelCard(id="small", modality=modality, network=network.config.to_dict()), path)


def run(capsys, *arguments):
    code = main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_a_scan_from_volume_to_judged_reconstruction(files, capsys):
    scan, recon = files / "s.h5", files / "r.nrrd"
    code, out, _ = run(
        capsys, "simulate", files / "volume.nrrd", "-o", scan, "--views", 30, "--photons", 1e5, "--json", "--quiet"
    )
    assert code == 0
    assert json.loads(out)["views"] == 30
    options = ["--method", "sirt", "--reference", files / "volume.nrrd", "--json", "--quiet"]
    code, out, err = run(capsys, "reconstruct", scan, "-o", recon, *options)
    entries = json.loads(out)
    assert code == 0
    assert err == ""
    assert entries["method"] == "sirt"
    assert entries["nfe"] == 0
    assert entries["residual"] < 0.1
    code, out, _ = run(capsys, "evaluate", recon, files / "volume.nrrd", "--json")
    judged = json.loads(out)
    assert judged["axial"]["psnr"] == pytest.approx(entries["metrics"]["axial"]["psnr"], abs=1e-3)
    assert {"psnr", "ssim"} == set(judged["sagittal"])


def test_what_a_run_will_take_is_told_before_it(files, capsys):
    options = ["--method", "sirt", "--sirt-iterations", 2]
    code, _, err = run(capsys, "reconstruct", files / "scan.h5", "-o", files / "r.nrrd", *options)
    assert code == 0
    assert re.match(r"32 x 32 x 4, needs [0-9.]+ GB, (about \d+|\d+ (s|min) to \d+) (s|min) on this machine\n", err)


def test_diffusion_with_a_prior_from_a_file_can_be_repeated(files, capsys):
    for name in ("a.nrrd", "b.nrrd"):
        options = ["--prior", files / "prior.safetensors", "--seed", 5, *FAST]
        code, out, _ = run(capsys, "reconstruct", files / "scan.h5", "-o", files / name, *options)
        assert code == 0
        assert "nfe 2" in out
        assert "not for diagnosis" in out
    assert np.array_equal(mbir.read_volume(files / "a.nrrd").array, mbir.read_volume(files / "b.nrrd").array)
    record = json.loads(mbir.read_volume(files / "a.nrrd").metadata["provenance"])
    assert record["seed"] == 5
    assert len(record["prior"]["sha256"]) == 64
    assert str(files) not in json.dumps(record)


def test_models_and_info_describe(files, capsys):
    (files / "models").mkdir()
    write_prior(files / "models" / "small.safetensors", modality="CT")
    code, out, _ = run(capsys, "models", "--json")
    assert code == 0
    assert "small" in [m["id"] for m in json.loads(out)["models"]]
    assert json.loads(run(capsys, "models", "show", "small", "--json")[1])["modality"] == "CT"
    assert json.loads(run(capsys, "info", files / "scan.h5", "--json")[1])["detector_columns"] > 32
    assert json.loads(run(capsys, "info", files / "volume.nrrd", "--json")[1])["shape"] == [4, 32, 32]
    assert json.loads(run(capsys, "info", files / "prior.safetensors", "--json")[1])["id"] == "small"
    assert json.loads(run(capsys, "info", "--json")[1])["torch"]


def test_training_a_prior_and_using_it(files, capsys):
    for k in range(3):
        body((3, 32, 32), (2.0 + k, 2.0, 3.0)).save(files / f"case{k}.nrrd")
    options = ["--widths", 8, 8, "--blocks", 1, "--images", 32, "--batch", 8, "--size", 16, "--id", "mine", "--quiet"]
    options += ["--light-levels", 1, "--share", "case0=0.5"]
    code, out, _ = run(capsys, "train", files, "--glob", "case*", "-o", files / "trained", *options, "--json")
    assert code == 0
    assert json.loads(out)["images_seen"] == 32
    prior = files / "trained" / "mine.safetensors"
    network = read_card(prior).network
    assert (network["widths"], network["light_levels"], network["knows_pixels"]) == ([8, 8], 1, True)
    with pytest.raises(SystemExit):
        run(capsys, "train", files, "-o", files / "other", "--share", "case0")
    assert "'case0' is no TEXT=SHARE" in capsys.readouterr().err
    options = ["--prior", prior, *FAST]
    assert run(capsys, "reconstruct", files / "scan.h5", "-o", files / "r.nrrd", *options)[0] == 0


def test_every_setting_is_an_option():
    done = subprocess.run(
        [sys.executable, "-m", "DiffusionMBIRLib", "reconstruct", "--help"],
        capture_output=True,
        text=True,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        check=True,
    )
    for name, item in ReconSettings.__dataclass_fields__.items():
        assert f"--{item.metadata['option'] or name.replace('_', '-')} " in done.stdout


# --- bad input


def damage(path, entry, value=None):
    """Remove or replace one dataset of a measurement."""
    with h5py.File(path, "r+") as file:
        del file[entry]
        if value is not None:
            file[entry] = value


def _nan(files):
    with h5py.File(files / "scan.h5", "r+") as file:
        file["data"][0, 0, 0] = np.nan


def _truncate(files):
    content = (files / "scan.h5").read_bytes()
    (files / "scan.h5").write_bytes(content[: len(content) // 2])


SPOILT = {
    "NaN": (_nan, r"scan.h5: .*data: 1 of .* NaN"),
    "wrong dimensions": (lambda f: damage(f / "scan.h5", "data", np.zeros((4, 8))), r"scan.h5.*axes"),
    "angle count": (lambda f: damage(f / "scan.h5", "geometry/angles_deg", np.arange(7.0)), r"scan.h5.*7.*angles"),
    "missing geometry": (lambda f: damage(f / "scan.h5", "geometry"), r"scan.h5: lacks .*geometry"),
    "truncated": (_truncate, r"scan.h5: "),
    "foreign": (lambda f: (f / "scan.h5").write_text("hello"), r"scan.h5: "),
    "missing": (lambda f: (f / "scan.h5").unlink(), r"scan.h5: no such file"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_a_spoilt_measurement_is_refused_in_one_line(case, files, capsys):
    spoil, message = SPOILT[case]
    spoil(files)
    options = ["--prior", files / "prior.safetensors", *FAST]
    check_refusal(run(capsys, "reconstruct", files / "scan.h5", "-o", files / "out.nrrd", *options), message, files)


OPTIONS = {
    "unknown prior": (["--prior", "nowhere"], "prior 'nowhere' is neither a file nor an installed id"),
    "setting out of range": (["--prior", "prior.safetensors", "--steps", "0"], "setting steps: 0"),
    "unknown preset": (["--preset", "best-ever"], "preset 'best-ever' is not known"),
    "unknown device": (["--prior", "prior.safetensors", "--device", "abacus"], "device 'abacus' is not known"),
    "device that is gone": (["--prior", "prior.safetensors", "--device", "cuda:99"], "device 'cuda:99' is not there"),
    "missing reference": (["--prior", "prior.safetensors", "--reference", "gone.nrrd"], "gone.nrrd: no such file"),
    "foreign prior": (["--prior", "./volume.nrrd"], "volume.nrrd: "),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_a_wrong_option_is_refused_in_one_line(case, files, capsys, monkeypatch):
    monkeypatch.chdir(files)
    options, message = OPTIONS[case]
    outcome = run(capsys, "reconstruct", "scan.h5", "-o", "out.nrrd", "--quiet", *options)
    check_refusal(outcome, message, files)


def test_an_unknown_precision_is_refused(files, capsys):
    with pytest.raises(SystemExit) as caught:
        run(capsys, "reconstruct", files / "scan.h5", "-o", files / "out.nrrd", "--precision", "nonsense")
    assert caught.value.code == 2
    assert "argument --precision: invalid choice: 'nonsense' (choose from" in capsys.readouterr().err
    assert not (files / "out.nrrd").exists()


def test_a_prior_for_another_modality_is_refused(files, capsys):
    write_prior(files / "prior.safetensors", modality="MR")
    options = ["--prior", files / "prior.safetensors", *FAST]
    outcome = run(capsys, "reconstruct", files / "scan.h5", "-o", files / "out.nrrd", *options)
    check_refusal(outcome, "prior 'small' is for MR, the measurement is CT", files)


def test_where_the_result_goes_is_checked_before_the_work(files, capsys):
    for output, message in (
        ("no/such/out.nrrd", "does not exist; make it first"),
        ("out.docx", "cannot write this format"),
    ):
        check_refusal(run(capsys, "reconstruct", files / "scan.h5", "-o", files / output, *FAST), message, files)


def test_refusals_in_json(files, capsys):
    code, out, err = run(capsys, "info", files / "gone.h5", "--json")
    assert code == 2
    assert json.loads(out)["exit_code"] == 2
    assert "gone.h5" in json.loads(out)["error"]
    assert "gone.h5" in err


def check_refusal(outcome, message, folder):
    code, out, err = outcome
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert "Traceback" not in err
    import re

    assert re.search(message, err), err
    assert not [p.name for p in folder.iterdir() if p.name.startswith((".", "out"))]


def child(files, setup, *arguments):
    """The command in a process of its own after some lines of Python."""
    code = f"{setup}\nimport sys\nfrom DiffusionMBIRLib.cli import main\nsys.exit(main(sys.argv[1:]))"
    environment = dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, env=environment, check=False
    )


@pytest.mark.slow
def test_a_full_disk_leaves_nothing_half_written(files):
    pytest.importorskip("resource")
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))"
    done = child(files, limit, "reconstruct", files / "scan.h5", "-o", files / "out.nrrd", "--method", "fbp")
    assert done.returncode == 1, done.stderr
    assert "out.nrrd" in done.stderr
    assert "disk" in done.stderr
    assert "Traceback" not in done.stderr
    assert not [p.name for p in files.iterdir() if p.name.startswith((".", "out"))]


@pytest.mark.slow
def test_no_memory_is_one_line(files):
    pytest.importorskip("resource")
    big = mbir.simulate(body((2, 64, 64)), views=4)
    from dataclasses import replace

    from DiffusionMBIRLib.geometry import Grid, ParallelBeam

    grid = Grid((2, 16384, 16384))
    wide = ParallelBeam.covering(grid, (0.0, 45.0, 90.0))
    scan = replace(big, grid=grid, stored_grid=None, geometry=wide, data=np.zeros(wide.data_shape(2), np.float32))
    mbir.write(scan, files / "big.h5")
    limit = "import torch, resource; resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))"
    done = child(files, limit, "reconstruct", files / "big.h5", "-o", files / "out.nrrd", "--method", "sirt", "--quiet")
    assert done.returncode == 1, done.stderr
    assert "no memory" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (files / "out.nrrd").exists()
