"""Model cards: read without torch, found by id or file, and refused with a reason."""

from __future__ import annotations

import hashlib
import json
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from DiffusionMBIRLib import models
from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.models import ModelCard, ValueScale, find, installed, read_card, sha256, user_models

CARD = ModelCard(
    id="ct-test",
    modality="CT",
    title="A title with \N{GREEK SMALL LETTER SIGMA}",
    value=ValueScale(-1000.0, 2000.0, "HU"),
    network={"kind": "compact-unet", "widths": [8, 16]},
    training={"images_seen": 10},
    data=[{"name": "a collection", "licence": "CC BY 4.0"}],
)


def write(path: Path, header: object, body: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return path


def write_card(path: Path, card: ModelCard = CARD) -> Path:
    return write(path, {"__metadata__": {"card": card.to_json()}})


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A user's folder of models, with the bundled ones out of sight."""
    (tmp_path / "resources" / "Models").mkdir(parents=True)
    user = tmp_path / "user"
    user.mkdir()
    monkeypatch.setattr(models, "resources", lambda: tmp_path / "resources")
    monkeypatch.setenv("DIFFUSIONMBIR_MODELS", str(user))
    return user


def test_card_round_trip(tmp_path):
    assert read_card(write_card(tmp_path / "a.safetensors")) == CARD


def test_card_from_a_later_version_is_read(tmp_path):
    entries = json.loads(CARD.to_json()) | {"a_new_field": 1}
    path = write(tmp_path / "a.safetensors", {"__metadata__": {"card": json.dumps(entries)}})
    assert read_card(path) == CARD


BAD_HEADERS = {
    "no card": ({"a": 1}, "no DiffusionMBIR model card"),
    "metadata is a number": ({"__metadata__": 3}, "no DiffusionMBIR model card"),
    "a list": ([1, 2], "damaged"),
    "not JSON": (b"{" * 30, "damaged"),
    "not text": (b"\xff\xfe" * 30, "damaged"),
    "card is a list": ({"__metadata__": {"card": "[]"}}, "model card"),
    "card is not JSON": ({"__metadata__": {"card": "x"}}, "model card"),
    "card lacks its id": ({"__metadata__": {"card": "{}"}}, "model card"),
    "negative scale": (
        {"__metadata__": {"card": json.dumps({"id": "a", "modality": "CT", "value": {"scale": -1}})}},
        "value: scale",
    ),
    "text for a number": (
        {"__metadata__": {"card": json.dumps({"id": "a", "modality": "CT", "sigma_data": "x"})}},
        "model card",
    ),
}


@pytest.mark.parametrize("name", BAD_HEADERS)
def test_bad_headers_name_the_file(tmp_path, name):
    header, reason = BAD_HEADERS[name]
    with pytest.raises(InputError, match=rf"bad\.safetensors.*{reason}"):
        read_card(write(tmp_path / "bad.safetensors", header))


def test_truncated_huge_and_missing_files(tmp_path):
    path = write_card(tmp_path / "a.safetensors")
    content = path.read_bytes()
    for length in (0, 7, 8, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match=r"a\.safetensors"):
            read_card(path)
    path.write_bytes(struct.pack("<Q", 1 << 60))
    with pytest.raises(InputError, match="not a safetensors file"):
        read_card(path)
    with pytest.raises(InputError, match="cannot be opened"):
        read_card(tmp_path / "missing.safetensors")
    with pytest.raises(InputError, match="cannot be opened"):
        read_card(tmp_path)


def test_sigma_limits_are_checked():
    with pytest.raises(InputError, match="sigma_max 0.001"):
        replace(CARD, sigma_max=0.001)


def test_pixels_that_a_prior_has_not_seen_are_remarked():
    card = replace(CARD, training={"pixel_spacings_mm": [0.8, 4.0]})
    assert not any(card.remark_on_pixels(side) for side in (0.7, 2.0, 5.0))
    for side in (0.5, 6.0):
        assert card.remark_on_pixels(side) == (
            f"prior {card.id} was trained with pixels of 0.8 to 4 mm; these have {side:g} mm"
        )
    for told in ({}, {"pixel_spacings_mm": None}, {"pixel_spacings_mm": ["1", 2]}, {"pixel_spacings_mm": [1]}):
        assert replace(CARD, training=told).remark_on_pixels(100.0) == ""


def test_find_by_file_and_by_id(folder, tmp_path):
    path = write_card(folder / "any-name.safetensors")
    assert find("ct-test") == path
    assert find(path) == path
    assert find(str(path)) == path
    write(folder / "broken.safetensors", b"{")
    assert installed() == {"ct-test": path}


def test_an_unknown_id_lists_those_at_hand(folder):
    with pytest.raises(InputError, match=r"'ct-other'.*installed: none"):
        find("ct-other")
    write_card(folder / "a.safetensors")
    write_card(folder / "b.safetensors", replace(CARD, id="mr-test"))
    with pytest.raises(InputError, match=r"'ct-other'.*installed: ct-test, mr-test"):
        find("ct-other")


def test_user_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("DIFFUSIONMBIR_MODELS", raising=False)
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert user_models() == tmp_path / "DiffusionMBIR" / "models"


def test_sha256(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"x" * (3 << 20))
    assert sha256(path) == hashlib.sha256(b"x" * (3 << 20)).hexdigest()


def test_bundled_cards_can_be_read():
    for path in (models.resources() / "Models").glob("*.safetensors"):
        card = read_card(path)
        assert card.licence, f"{path.name}: a bundled prior states its licence"
        made_up = card.training.get("settings", {}).get("shapes") == 1  # learnt from shapes of the program alone
        assert card.data or made_up, f"{path.name}: a bundled prior states its training data"


def test_cards_need_no_torch(tmp_path):
    path = write_card(tmp_path / "a.safetensors")
    code = (
        "import sys; sys.modules['torch'] = sys.modules['safetensors'] = None\n"
        "from DiffusionMBIRLib.models import read_card\n"
        f"assert read_card({str(path)!r}).id == 'ct-test'"
    )
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root, timeout=60)
