"""Entries of JSON and TOML: what does not fit is refused by name, in one line, before anything is made of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from DiffusionMBIRLib import models
from DiffusionMBIRLib.cli import main
from DiffusionMBIRLib.config import ReconSettings, preset_values
from DiffusionMBIRLib.errors import InputError, one_line
from DiffusionMBIRLib.models import ModelCard, find, read_card
from DiffusionMBIRLib.priors.checkpoints import load_prior, save_prior
from DiffusionMBIRLib.priors.compact import CompactConfig, CompactUNet
from DiffusionMBIRLib.schema import (
    Flag,
    Listed,
    Mapped,
    Maybe,
    Number,
    Object,
    OneOf,
    Plain,
    Text,
    checked,
    json_object,
)
from Testing.engine.test_models import CARD, folder, write, write_card  # noqa: F401

SMALL = CompactConfig(widths=(8, 8), blocks=1, embedding=8)
NOT_FIT = [
    (Number(0, 1), 2), (Number(0, 1), True), (Number(0, 1), "1"), (Number(), float("nan")), (Number(), 10**400),
    (Number(0, 9, whole=True), 1.5), (Text(3), "four"), (Text(), 3), (Text(9, "[a-z]+"), "A"), (Flag(), 1),
    (Listed(Number(), 2), [1, 2, 3]), (Listed(Number()), [1, "2"]), (Listed(Number()), {"a": 1}),
    (Mapped(Text()), {"a": 1}), (Mapped(Text()), []), (OneOf(("a", "b")), "c"), (OneOf(("a",)), ["a"]),
    (Object({"a": Number()}), {}), (Object({"a": Number()}), {"a": "1"}), (Object({}), []), (Maybe(Flag()), 0),
    (Plain(), {"a": [float("inf")]}), (Plain(), [[[[[[[[[[1]]]]]]]]]]), (Plain(), list(range(1 << 15))),
    (Plain(), 10**400),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "value"), NOT_FIT)
def test_what_does_not_fit_is_refused_by_name(rule, value):
    with pytest.raises(InputError, match="the card: field must be") as caught:
        checked({"field": value}, {"field": rule}, "the card")
    assert len(str(caught.value)) < 300


def test_what_fits_is_kept_and_other_names_are_refused_or_passed_over():
    schema = {"a": Number(), "b": Listed(Text()), "c": Plain(), "e": Object({"x": Flag(), "y": Flag()}, ("y",))}
    schema |= {"f": Maybe(Number()), "g": Maybe(Number())}
    entries = {"a": 1, "b": ["x"], "c": {"d": [1, None, True]}, "e": {"x": True, "z": 1}, "f": None, "g": 2}
    assert checked(entries, schema, "it") == entries
    with pytest.raises(InputError, match="it: 'z' is not known; known are a, b, c, e, f, g"):
        checked({"z": 1}, schema, "it")
    assert checked({"z": 1, "a": 2}, schema, "it", others=True) == {"a": 2}
    with pytest.raises(InputError, match="it: the field b is missing"):
        checked({"a": 1}, schema, "it", needed=("b",))
    with pytest.raises(InputError, match="it: must be an object"):
        checked([1], schema, "it")


@pytest.mark.parametrize("text", ["[" * 100000, "[]", "{", "9" * 5000, b"\xff\xfe\xff", '{"a": ' + "9" * 5000 + "}"])
def test_what_is_no_json_object_is_refused_in_one_line(text):
    with pytest.raises(InputError, match="the file: ") as caught:
        json_object(text, "the file")
    assert "\n" not in str(caught.value)


BAD_CARDS = {
    "id": "../elsewhere", "modality": 3, "title": ["a"], "value": {"scale": "wide"}, "channels": 1.5,
    "sigma_max": 1e300, "network": [1], "training": "none", "licence": {}, "data": [{"a": 1}], "source": {"sha": 1},
}  # fmt: skip


@pytest.mark.parametrize("key", BAD_CARDS)
def test_a_card_with_an_entry_that_is_not_fit_is_refused(tmp_path, key):
    entries = json.loads(CARD.to_json()) | {key: BAD_CARDS[key]}
    path = write(tmp_path / "bad.safetensors", {"__metadata__": {"card": json.dumps(entries)}})
    with pytest.raises(InputError, match=rf"bad\.safetensors.*{key}"):
        read_card(path)


def saved(path: Path, **network) -> Path:
    made = CompactUNet(SMALL)
    save_prior(made, ModelCard("small", "CT", network=SMALL.to_dict() | network), path)
    return path


ABSURD = [
    {"widths": [65536, 65536]}, {"widths": [8] * 64}, {"blocks": 65536}, {"embedding": 65536}, {"stem": 4096},
    {"image_channels": 65536}, {"widths": "88"}, {"widths": [8, 8.0]}, {"blocks": "1"}, {"dropout": "0"},
    {"blocks": 10**30}, {"kind": "adm", "width": 65536, "multipliers": [65536]}, {"kind": "ncsnpp", "blocks": 60000},
    {"kind": "ncsnpp", "fir": [[1]]}, {"kind": "adm", "new_attention_order": 1},
]  # fmt: skip


@pytest.mark.parametrize("network", ABSURD)
def test_an_absurd_network_is_refused_before_it_takes_memory(tmp_path, monkeypatch, network):
    path = saved(tmp_path / "small.safetensors", **network)
    largest = []
    empty = torch.empty

    def seen(*shape, **options):
        made = empty(*shape, **options)
        largest.append(0 if made.is_meta else made.numel())
        return made

    monkeypatch.setattr(torch, "empty", seen)
    with pytest.raises(InputError, match=r"small\.safetensors"):
        load_prior(path)
    assert max(largest, default=0) < 1 << 20


def test_a_network_of_the_right_size_opens(tmp_path):
    assert load_prior(saved(tmp_path / "small.safetensors")).card.id == "small"


@pytest.mark.parametrize("name", ["../../x", "../Presets/mri", "mri.toml", "", "a\0b", "/etc/passwd", "mri\n"])
def test_a_preset_is_a_plain_name(name):
    with pytest.raises(InputError, match="is not known; presets: all-views, disc-bounds, discs, limited-angle"):
        preset_values(name)


@pytest.mark.parametrize(
    ("text", "reason"),
    [("steps = [", "no TOML"), ("steps = 'x'", "not a number"),
     ("prior = 3", "not a text"), ("steps = nan", "whole number"),
     ("method = ['dds']", "not a text"), ("steps = inf", "whole number"), ("other = 1", "'other' is not known"),
     ("[dds]\nother = 1", "'other' is not known"), ("[ddt]\nsteps = 1", "'ddt' is not a method; use one of dual, dds"),
     ("[dual]\nsteps = 0", "lies outside"), ("[dds]\nbase = 'mri'", "'base' is not known")],
)  # fmt: skip
def test_a_preset_with_wrong_entries_is_refused(folder, tmp_path, text, reason):  # noqa: F811
    (tmp_path / "resources" / "Presets").mkdir()
    (tmp_path / "resources" / "Presets" / "own.toml").write_text(text)
    with pytest.raises(InputError, match=reason):
        ReconSettings.preset("own")


def test_nothing_takes_the_place_of_a_bundled_prior(folder, tmp_path, monkeypatch, capsys):  # noqa: F811
    bundled = write_card(tmp_path / "resources" / "Models" / "bundled.safetensors")
    write_card(folder / "mine.safetensors", replace(CARD, title="another"))
    write(folder / "broken.safetensors", b"{")
    (tmp_path / "ct-test").write_text("a file in the working folder")
    monkeypatch.chdir(tmp_path)
    assert find("ct-test") == bundled
    assert find("user/mine.safetensors") == Path("user/mine.safetensors")
    assert set(models.damaged()) == {folder / "mine.safetensors", folder / "broken.safetensors"}
    assert main(["models", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [entry["id"] for entry in listed["models"]] == ["ct-test"]
    assert len(listed["damaged"]) == 2
    (tmp_path / "other").write_text("a file in the working folder")
    with pytest.raises(InputError, match="neither a file nor an installed id"):
        find("other")


def test_a_long_reason_keeps_its_beginning_and_its_end():
    text = one_line("file.h5:\n a \x1b[31m b " + "x" * 5000 + " copy it again")
    assert len(text) == 500
    assert text.startswith("file.h5: a [31m b ")
    assert text.endswith(" copy it again")
    assert one_line("short\r\nreason") == "short reason"
