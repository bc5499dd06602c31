"""The user's folder of priors: import, list, show, verify and remove - and what is refused before it does harm."""

from __future__ import annotations

import json
import pickle
import re
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib import models
from DiffusionMBIRLib.cli import main
from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.models import ValueScale, read_card, sha256
from DiffusionMBIRLib.priors.checkpoints import load_prior, save_prior
from DiffusionMBIRLib.priors.importing import import_prior, verify_prior
from Testing.engine.helpers import body, run_with_file_limit
from Testing.engine.published_files import averaged, images, ncsnpp, score_sde


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The user's own folder of priors, which does not exist at first."""
    monkeypatch.setenv("DIFFUSIONMBIR_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


@pytest.fixture
def published(tmp_path) -> Path:
    path = tmp_path / "checkpoint_5.pth"
    torch.save(score_sde(ncsnpp(0), averaged(1)), path)
    return path


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
    assert verify_prior("ct-compact-v1")["digest"] == "matches"
    save_prior(
        load_prior(bundled).network, replace(card, id="bare", source={}), models.user_models() / "bare.safetensors"
    )
    assert verify_prior("bare")["digest"] == "not recorded"


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


@pytest.mark.slow
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


def _tar_of_pickles(path: Path) -> None:
    content = path.with_name("pickle")
    content.write_bytes(pickle.dumps(Code(path.with_name("marker")), protocol=2))
    with tarfile.open(path, "w") as file:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            file.add(content, name)


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
    "code in a tar": (_tar_of_pickles, "refused: a tar file"),
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
    "config that is not JSON": (["--config", "text.json"], r"text\.json: is no JSON"),
    "config that is a list": (["--config", "list.json"], "must be a JSON object"),
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


@pytest.mark.slow
def test_a_full_disk_leaves_nothing_half_imported(published, folder):
    code = (
        "from DiffusionMBIRLib.errors import EngineError\n"
        "from DiffusionMBIRLib.priors.importing import import_prior\n"
        f"try:\n    import_prior({str(published)!r}, 'mine')\n"
        "except EngineError as error:\n    print(error)"
    )
    assert "disk" in run_with_file_limit(code, 10_000)
    assert not list(folder.iterdir())
