"""Checkpoints of published networks: opened, imported, checked and removed - and refused before they can do harm."""

from __future__ import annotations

import json
import pickle
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib import models
from DiffusionMBIRLib.cli import main
from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.models import ModelCard, ValueScale, read_card, sha256
from DiffusionMBIRLib.priors.adm import ADMConfig, ADMUNet
from DiffusionMBIRLib.priors.analytic import GaussianPrior
from DiffusionMBIRLib.priors.importing import import_prior, verify_prior
from DiffusionMBIRLib.priors.ncsnpp import NCSNpp, NCSNppConfig
from DiffusionMBIRLib.priors.networks import NoisePrior, ScorePrior, ddpm_sigmas
from Testing.engine.helpers import body, run_with_file_limit
from Testing.engine.vectors import SHARED, arrays, error, recorded

NCSNPP = NCSNppConfig(width=8, multipliers=(1, 2), blocks=1)
ADM = ADMConfig(width=32, multipliers=(1, 2), blocks=1, attention_levels=(1,), head_channels=64)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The user's own folder of priors, which does not exist at first."""
    monkeypatch.setenv("DIFFUSIONMBIR_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


def ncsnpp(seed: int = 0, **changes) -> NCSNpp:
    torch.manual_seed(seed)
    return NCSNpp(NCSNppConfig(**{**NCSNPP.__dict__, **changes})).eval()


def adm() -> ADMUNet:
    torch.manual_seed(0)
    network = ADMUNet(ADM).eval()
    for parameter in network.parameters():  # its last layers begin as zeros
        nn.init.normal_(parameter, std=0.05)
    return network


def score_sde(network: NCSNpp, averages: NCSNpp) -> dict:
    """What score_sde writes: weights as parallel training names them, averages as a list, a NumPy number."""
    weights = {"sigmas": torch.linspace(300.0, 0.02, 10, dtype=torch.float64), **network.state_dict()}
    return {
        "optimizer": {"state": {0: torch.ones(3)}, "param_groups": [{"lr": np.float64(2e-4)}]},
        "model": {f"module.{k}": v for k, v in weights.items()},
        "ema": {"decay": 0.999, "num_updates": 5, "shadow_params": [p.detach() for p in averages.parameters()]},
        "step": 5,
    }


@pytest.fixture
def published(tmp_path) -> Path:
    path = tmp_path / "checkpoint_5.pth"
    torch.save(score_sde(ncsnpp(0), averaged(1)), path)
    return path


def averaged(seed: int) -> NCSNpp:
    """Other weights, but the frequencies of the first: they are not trained."""
    network = ncsnpp(seed)
    frequencies = {"all_modules.0.W": ncsnpp(0).state_dict()["all_modules.0.W"]}
    network.load_state_dict(frequencies, strict=False)
    return network


def images(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(9))


# --- one sigma convention


class ScoreOf(nn.Module):
    """The exact score of a prior."""

    def __init__(self, prior: GaussianPrior) -> None:
        super().__init__()
        self.prior = prior

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        level = float(sigma[0])
        return (self.prior.denoise(x, level) - x) / level**2


class NoiseOf(ScoreOf):
    """The exact noise of a prior in DDPM's convention, with variances as further channels."""

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        level = float(ddpm_sigmas()[round(float(step[0]))])
        scaled = x * (1 + level**2) ** 0.5
        noise = (scaled - self.prior.denoise(scaled, level)) / level
        return torch.cat([noise, torch.full_like(noise, 7.0)], dim=1)


@pytest.mark.parametrize("step", [0, 1, 250, 999])
@pytest.mark.parametrize(("kind", "of"), [(ScorePrior, ScoreOf), (NoisePrior, NoiseOf)])
def test_scores_and_noise_become_means(kind, of, step):
    truth = GaussianPrior.smooth((8, 8))
    prior = kind(of(truth), ModelCard(id="a", modality="CT"), multiple=1, precision=torch.float32)
    sigma = float(ddpm_sigmas()[step])
    x = images(2, 1, 8, 8)
    # float32: the mean is what is left of numbers of the size of sigma
    assert torch.allclose(prior.denoise(x, sigma), truth.denoise(x, sigma), atol=2e-6 * (1 + sigma))
    assert torch.equal(prior.denoise(x, 0.0), x)


def test_steps_lie_between_whole_ones():
    prior = NoisePrior(nn.Identity(), ModelCard(id="a", modality="CT"), multiple=1, precision=torch.float32)
    table = ddpm_sigmas()
    assert [prior.step_of(table[k]) for k in (0, 17, 999)] == pytest.approx([0, 17, 999], abs=1e-9)
    assert prior.step_of((table[3] * table[4]) ** 0.5) == pytest.approx(3.5)
    assert (prior.step_of(1e-4), prior.step_of(1e4)) == (0, 999)


# --- files


def test_averaged_weights_are_preferred(published):
    x, sigma = images(2, 1, 16, 16), torch.tensor([0.5, 0.5])
    for which, network in (("ema", averaged(1)), ("raw", ncsnpp(0))):
        prior = mbir.load_prior(published, weights=which)
        assert torch.allclose(prior.network(x, sigma), network(x, sigma), atol=1e-5)
        assert torch.allclose(prior.denoise(x, 0.5), x + 0.25 * network(x, sigma), atol=1e-5)
    assert (prior.sigma_min, prior.sigma_max) == (0.02, 300)  # from the table in the file
    assert (prior.card.channels, prior.card.value) == (1, ValueScale(-1000.0, 2000.0, "HU"))
    assert prior.denoise(images(1, 1, 19, 22), 0.3).shape == (1, 1, 19, 22)
    with pytest.raises(InputError, match="weights 'best' are not known"):
        mbir.load_prior(published, weights="best")


def test_a_plain_adm_network(tmp_path):
    path = tmp_path / "adm.pt"
    torch.save(adm().state_dict(), path)
    prior = mbir.load_prior(path)
    x, sigma = images(2, 1, 16, 16), float(ddpm_sigmas()[400])
    with torch.inference_mode():
        noise = adm()(x / (1 + sigma**2) ** 0.5, torch.full((2,), 400.0))
    assert noise.shape[1] == 2
    assert torch.allclose(prior.denoise(x, sigma), x - sigma * noise[:, :1], atol=1e-4)
    assert prior.sigma_max == pytest.approx(157.4, abs=0.1)


def test_other_containers_of_the_same_weights(published, tmp_path):
    from safetensors.torch import save_file

    x = images(1, 1, 16, 16)
    expected = mbir.load_prior(published, weights="raw").denoise(x, 0.4)
    weights = ncsnpp(0).state_dict()
    save_file(weights, str(tmp_path / "plain.safetensors"))
    torch.save({"model": weights}, tmp_path / "bare.pt")
    torch.save(weights, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    for name in ("plain.safetensors", "bare.pt", "legacy.pth"):
        assert torch.equal(mbir.load_prior(tmp_path / name).denoise(x, 0.4), expected), name


def test_numbers_of_an_older_numpy(published, tmp_path):
    """The module of NumPy's number was called numpy.core before NumPy 2, and is numpy._core since."""
    for name in (b"numpy.core.multiarray", b"numpy._core.multiarray"):
        path = tmp_path / "renamed.pth"
        with zipfile.ZipFile(published) as source, zipfile.ZipFile(path, "w") as target:
            for entry in source.namelist():
                content = source.read(entry)
                if entry.endswith("data.pkl"):
                    content, count = re.subn(rb"numpy\._?core\.multiarray", name, content)
                    assert count == 1
                target.writestr(entry, content)
        assert mbir.load_prior(path).card.channels == 1


@recorded
@pytest.mark.parametrize("name", ["ncsnpp_tiny_img64", "ncsnpp_tiny_img256layout", "ncsnpp_tiny_complex2ch"])
@pytest.mark.parametrize("which", ["ema", "raw"])
def test_recorded_scores(name, which):
    prior, v = mbir.load_prior(SHARED / "vectors" / f"{name}.pth", weights=which), arrays(name)
    for case in ("main", "lohi"):
        if f"x_{case}" in v:
            x, sigma = v[f"x_{case}"], v[f"sigma_{case}"]
            with torch.inference_mode():
                assert error(prior.network(x, sigma), v[f"score_{which}_{case}"]) < 1e-4
            for k in range(len(x)):
                mean = prior.denoise(x[k : k + 1], float(sigma[k]))
                expected = x[k] + sigma[k] ** 2 * v[f"score_{which}_{case}"][k]
                assert error(mean, expected[None]) < 1e-4


@recorded
def test_recorded_noise():
    # How many channels a head has is not in the weights; published networks have 64.
    prior = mbir.load_prior(SHARED / "vectors" / "dds_tiny_img64.pt", config={"head_channels": 32})
    v = arrays("dds_tiny_img64")
    for case in ("main", "ends"):
        x, step = v[f"x_{case}"], v[f"t_{case}"]
        with torch.inference_mode():
            assert error(prior.network(x, step), v[f"out_{case}"]) < 1e-4
        for k, sigma in enumerate(ddpm_sigmas()[step.long()].tolist()):
            mean = prior.denoise(x[k : k + 1] * (1 + sigma**2) ** 0.5, sigma)
            expected = x[k] * (1 + sigma**2) ** 0.5 - sigma * v[f"out_{case}"][k, :1]
            assert error(mean, expected[None]) < 1e-4


# --- import, list, show, verify, remove


def run(capsys, *arguments):
    code = main(["models", *(str(a) for a in arguments)])
    out, err = capsys.readouterr()
    return code, out, err


def as_json(capsys, *arguments):
    code, out, err = run(capsys, *arguments, "--json")
    assert (code, err) == (0, ""), err
    return json.loads(out)


def test_from_file_to_reconstruction(published, folder, capsys):
    options = ["--id", "mine", "--size", 64, "--licence", "CC0", "--title", "A test", "--value-scale", 3000]
    entries = as_json(capsys, "import", published, *options)
    path = folder / "mine.safetensors"
    assert entries["file"] == str(path)
    card = read_card(path)
    assert (card.id, card.modality, card.licence, card.title) == ("mine", "CT", "CC0", "A test")
    assert card.value == ValueScale(-1000.0, 3000.0, "HU")
    assert card.training == {"size": 64}
    assert card.network["kind"] == "ncsnpp"
    source = card.source
    assert (source["file"], source["sha256"], source["weights"]) == ("checkpoint_5.pth", sha256(published), "ema")
    x = images(1, 1, 16, 16)
    assert torch.equal(mbir.load_prior("mine").denoise(x, 0.4), mbir.load_prior(published).denoise(x, 0.4))
    listed = {m["id"]: m for m in as_json(capsys, "list")["models"]}
    assert (listed["mine"]["origin"], listed["mine"]["kind"]) == ("user", "ncsnpp")
    assert as_json(capsys, "show", "mine")["source"] == source
    assert as_json(capsys, "verify", "mine")["verified"][0]["digest"] == "matches"
    settings = mbir.ReconSettings(steps=2, tv_sweeps=3)
    result = mbir.reconstruct(mbir.simulate(body((2, 24, 24)), views=8), prior="mine", settings=settings)
    assert result.provenance["prior"]["id"] == "mine"
    assert as_json(capsys, "remove", "mine") == {"removed": str(path)}
    assert not list(folder.iterdir())


def test_text_for_people(published, capsys):
    code, out, _ = run(capsys, "import", published, "--id", "mine")
    assert code == 0
    assert "(HU - (-1000)) / 2000" in out
    assert "mine" in run(capsys)[1]
    assert "good, digest matches" in run(capsys, "verify")[1]
    assert "removed" in run(capsys, "remove", "mine")[1]


def test_defaults_for_two_channels(tmp_path, capsys):
    path = tmp_path / "complex.pth"
    torch.save(score_sde(*[ncsnpp(0, image_channels=2)] * 2), path)
    entries = as_json(capsys, "import", path, "--id", "complex")
    assert (entries["modality"], entries["channels"], entries["value"]["scale"]) == ("MR", 2, 1.0)
    with pytest.raises(InputError, match="prior 'complex' is for MR"):
        mbir.reconstruct(mbir.simulate(body((2, 24, 24)), views=8), prior="complex")
    with pytest.raises(InputError, match=r"prior 'complex' works on 2 channels"):
        mbir.reconstruct(mbir.simulate(body((2, 24, 24)), views=8), prior=str(path))


def test_our_own_priors_can_be_imported(capsys):
    bundled = models.find("ct-compact-v1")
    as_json(capsys, "import", bundled, "--id", "copy")
    card = read_card(models.find("copy"))
    assert (card.id, card.network, card.licence) == ("copy", read_card(bundled).network, read_card(bundled).licence)
    assert verify_prior("copy")["digest"] == "matches"
    assert verify_prior("ct-compact-v1")["digest"] == "not recorded"


def test_replacing_needs_force(published, tmp_path, folder, capsys):
    as_json(capsys, "import", published, "--id", "mine")
    before = (folder / "mine.safetensors").read_bytes()
    check_refusal(run(capsys, "import", published, "--id", "mine", "--raw"), "id 'mine' is taken; .* --force")
    assert (folder / "mine.safetensors").read_bytes() == before
    assert as_json(capsys, "import", published, "--id", "mine", "--raw", "--force")["source"]["weights"] == "raw"
    message = "id 'ct-compact-v1' belongs to a bundled prior"
    check_refusal(run(capsys, "import", published, "--id", "ct-compact-v1", "--force"), message)
    assert [p.name for p in folder.iterdir()] == ["mine.safetensors"]


def test_bundled_priors_stay(capsys):
    path = models.find("ct-compact-v1")
    check_refusal(run(capsys, "remove", "ct-compact-v1"), "'ct-compact-v1' is bundled .* cannot be removed")
    assert path.is_file()


def test_damage_after_the_import_is_found(published, folder, capsys):
    as_json(capsys, "import", published, "--id", "mine")
    as_json(capsys, "import", published, "--id", "other")
    path = folder / "mine.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    check_refusal(run(capsys, "verify", "mine"), r"mine\.safetensors: .*SHA-256 differs")
    assert as_json(capsys, "verify", "other")
    path.write_bytes(content[:-100])
    check_refusal(run(capsys, "verify"), r"mine\.safetensors: .*copy the file again")
    path.write_bytes(b"{")
    check_refusal(run(capsys, "verify"), r"mine\.safetensors: not a safetensors file")
    as_json(capsys, "remove", "mine")
    assert [p.name for p in folder.iterdir()] == ["other.safetensors"]


# --- what is refused


def check_refusal(outcome, message: str) -> None:
    code, out, err = outcome
    assert code == 2, err
    assert out == ""
    assert err.count("\n") == 1
    assert re.search(message, err), err


class Code:
    """Creates a file when it is unpickled by a reader that trusts it."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return (open, (str(self.marker), "w"))


def _shortened(path: Path, length: int) -> None:
    path.write_bytes(path.read_bytes()[:length])


def _with_code(path: Path) -> None:
    torch.save({**score_sde(ncsnpp(), ncsnpp()), "extra": Code(path.with_name("marker"))}, path)


def _bare_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"model": Code(path.with_name("marker"))}, protocol=2))


def _without_one_average(path: Path) -> None:
    content = score_sde(ncsnpp(), ncsnpp())
    content["ema"]["shadow_params"].pop()
    torch.save(content, path)


SPOILT = {
    "half of it": (lambda p: _shortened(p, p.stat().st_size // 2), "truncated"),
    "four bytes": (lambda p: _shortened(p, 4), "truncated"),
    "nothing": (lambda p: _shortened(p, 0), "truncated"),
    "text": (lambda p: p.write_text("hello, I am no checkpoint"), "not a torch checkpoint"),
    "another network": (lambda p: torch.save(nn.Linear(3, 3).state_dict(), p), "weight, bias, .* no network known"),
    "a list": (lambda p: torch.save([1, 2], p), "holds no weights"),
    "numbers only": (lambda p: torch.save({"step": 3}, p), "'step' is not a tensor"),
    "code": (_with_code, r"refused: its pickle asks for \w*\.open, which could run code"),
    "code in a bare pickle": (_bare_pickle, r"refused: its pickle asks for \w*\.open"),
    "a whole network": (lambda p: torch.save(nn.Linear(3, 3), p), r"refused: .* torch\.nn\.modules\.linear\.Linear"),
    "an average too few": (_without_one_average, "averaged weights for .* import the raw weights"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_a_spoilt_file_is_refused_in_one_line(case, published, folder, capsys):
    spoil, message = SPOILT[case]
    spoil(published)
    check_refusal(run(capsys, "import", published, "--id", "mine"), rf"checkpoint_5\.pth: .*{message}")
    with pytest.raises(InputError, match=rf"checkpoint_5\.pth: .*{message}"):
        mbir.load_prior(published)
    assert not folder.exists()
    assert not published.with_name("marker").exists()


def test_the_marker_appears_where_code_is_trusted(tmp_path):
    """The file that is refused above is one that would have run."""
    path = tmp_path / "bad.pth"
    _with_code(path)
    torch.load(path, weights_only=False)["extra"].close()
    assert (tmp_path / "marker").exists()


OPTIONS = {
    "config that does not fit": (["--config", "wide.json"], r"all_modules\.0\.W \(8, needed 16\)"),
    "config of another kind": (["--config", "adm.json"], "of kind 'ncsnpp', the config of 'adm'"),
    "config that is not JSON": (["--config", "text.json"], r"text\.json: not JSON"),
    "config that is a list": (["--config", "list.json"], "one JSON object"),
    "config that is missing": (["--config", "gone.json"], r"gone\.json: cannot be opened"),
    "impossible scale": (["--value-scale", "0"], "value.scale must be positive"),
    "id with a folder": (["--id", "../mine"], "id '../mine': use letters"),
    "id with a drive": (["--id", "c:\\mine"], "use letters, digits"),
    "empty id": (["--id", "a/"], "use letters, digits"),
    "hidden id": (["--id", ".mine"], "beginning with a letter"),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_a_wrong_option_is_refused_in_one_line(case, published, folder, capsys, monkeypatch):
    monkeypatch.chdir(published.parent)
    for name, text in {"wide": '{"width": 16}', "adm": '{"kind": "adm"}', "text": "width 16", "list": "[1]"}.items():
        Path(f"{name}.json").write_text(text)
    options, message = OPTIONS[case]
    check_refusal(run(capsys, "import", published, "--id", "mine", *options), message)
    assert not folder.exists()


def test_what_is_not_named_is_asked_for(published, tmp_path, capsys):
    check_refusal(run(capsys, "import", published), "say by --id")
    check_refusal(run(capsys, "import"), "models import: name the file")
    check_refusal(run(capsys, "show"), "models show: name a prior")
    check_refusal(run(capsys, "remove"), "models remove: name a prior")
    check_refusal(run(capsys, "remove", "gone"), "'gone' is not in")
    check_refusal(run(capsys, "remove", published), "use letters")
    check_refusal(run(capsys, "verify", "gone"), "'gone' is neither a file nor an installed id")
    check_refusal(run(capsys, "import", tmp_path / "gone.pth", "--id", "mine"), r"gone\.pth: no such file")
    with pytest.raises(InputError, match="modality 'XR'"):
        import_prior(published, "mine", modality="XR")


def test_a_ct_prior_has_one_channel(tmp_path, folder, capsys):
    path = tmp_path / "complex.pth"
    torch.save(score_sde(*[ncsnpp(0, image_channels=2)] * 2), path)
    message = r"complex\.pth: a network of 2 channels works on complex images"
    check_refusal(run(capsys, "import", path, "--id", "mine", "--modality", "CT"), message)
    assert not folder.exists()


def test_a_full_disk_leaves_nothing_half_imported(published, folder):
    code = (
        "from DiffusionMBIRLib.errors import EngineError\n"
        "from DiffusionMBIRLib.priors.importing import import_prior\n"
        f"try:\n    import_prior({str(published)!r}, 'mine')\n"
        "except EngineError as error:\n    print(error)"
    )
    assert "disk" in run_with_file_limit(code, 10_000)
    assert not list(folder.iterdir())
