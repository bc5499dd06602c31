"""Tables, pictures, the JSON file of figures and the record of a run."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.models import ModelCard
from DiffusionMBIRLib.provenance import alias, plain, provenance
from DiffusionMBIRLib.report import markdown_table, save_metrics, save_montage, text_table


def figures(level: float, **more) -> dict:
    return {p: {"psnr": level + k, "ssim": 0.9} for k, p in enumerate(("axial", "coronal", "sagittal"))} | more


CASES = {
    "cases": [
        {
            "task": "sparse-view-ct",
            "views": 8,
            "angles_deg": 180.0,
            "methods": {"FBP": figures(20.0, seconds=0.1), "ours": figures(30.5, residual=0.0123, seconds=9.0, nfe=30)},
        },
        {"task": "limited-angle-ct", "views": 90, "angles_deg": [0.0, 1.0, 89.0], "methods": {"FBP": {}}},
    ]
}


def test_markdown_table():
    lines = markdown_table(CASES).splitlines()
    assert len(lines) == 5
    assert len({line.count("|") for line in lines}) == 1
    assert lines[3] == (
        "|  |  |  | ours | **30.50 / 0.900** | **31.50 / 0.900** | **32.50 / 0.900** | 1.23e-02 | 9.0 s | 30 |"
    )
    assert "**" not in lines[2]
    assert "180 deg" in lines[2]
    assert lines[4] == "| limited-angle-ct | 90 | 89 deg | FBP | - | - | - | - | - | - |"


def test_text_table_is_aligned():
    text = text_table(CASES)
    lines = text.splitlines()
    assert "*30.50 / 0.900" in text
    assert "not for diagnosis" in lines[-1]
    assert lines[2].index("FBP") == lines[3].index("ours") == lines[0].index("method")


def test_metrics_file(tmp_path):
    path = tmp_path / "metrics.json"
    save_metrics(path, {"a": np.float32(0.5), "b": math.inf, "c": (1, 2), "d": np.arange(2)})
    assert json.loads(path.read_text()) == {"a": 0.5, "b": None, "c": [1, 2], "d": [0, 1]}
    save_metrics(path, {"a": 1})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.json"]
    with pytest.raises(InputError, match="nowhere"):
        save_metrics(tmp_path / "nowhere" / "metrics.json", {})


def test_montage(tmp_path):
    pytest.importorskip("matplotlib")
    truth = np.random.default_rng(0).normal(size=(6, 16, 20)) * 100
    before, modules = truth.copy(), set(sys.modules)
    path = tmp_path / "case.png"
    save_montage(
        path,
        {"FBP": truth + 50, "ours": truth + 5},
        truth,
        spacing_mm=(1.0, 1.0, 3.0),
        title="Sparse-view CT, 8 views",
        scores={"ours": figures(30.0), "FBP": {}},
        width_px=1600,
    )
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG")
    assert int.from_bytes(content[16:20], "big") == 1600
    assert np.array_equal(truth, before)
    assert "matplotlib.pyplot" not in set(sys.modules) - modules
    assert [p.name for p in tmp_path.iterdir()] == ["case.png"]


def test_montage_names_bad_input(tmp_path, monkeypatch):
    truth = np.zeros((2, 4, 4))

    def save(methods):
        save_montage(tmp_path / "a.png", methods, truth, spacing_mm=(1.0, 1.0, 1.0), title="t")

    with pytest.raises(InputError, match="FBP"):
        save({"FBP": np.zeros((2, 4, 5))})
    with pytest.raises(InputError, match="at least one method"):
        save({})
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(InputError, match="pip install matplotlib"):
        save({"FBP": truth})


@dataclass(frozen=True)
class Settings:
    lam: float = 5e-4
    output: str = "/home/somebody/result.nrrd"
    limit: float = math.inf
    angles_deg: tuple[float, ...] = (0.0, 22.5)


def test_provenance_is_plain_and_private():
    record = provenance(
        Settings(),
        prior=ModelCard(id="ct-1", modality="CT", licence="CC BY 4.0"),
        prior_sha256="ab" * 32,
        seed=7,
        device="cpu",
        inputs=["/data/somebody/scan.h5", Path("elsewhere/b.nrrd"), r"C:\Users\somebody\c.nrrd"],
    )
    text = json.dumps(record, allow_nan=False)
    assert record["inputs"] == [alias(name) for name in ("scan.h5", "b.nrrd", "c.nrrd")]
    assert record["settings"] == {"lam": 5e-4, "output": "result.nrrd", "limit": None, "angles_deg": [0.0, 22.5]}
    assert record["prior"]["id"] == "ct-1"
    assert record["prior"]["sha256"] == "ab" * 32
    assert record["date_utc"].endswith("Z")
    assert record["seed"] == 7
    assert record["numpy"] == np.__version__
    assert record["version"]
    for secret in ("somebody", "/home", "C:\\", "elsewhere"):
        assert secret not in text


def test_provenance_takes_seed_and_origin_from_elsewhere():
    record = provenance({"seed": 3}, measurement={"views": 8, "source": "/data/somebody/case.nrrd"})
    assert record["seed"] == 3
    assert record["measurement"] == {"views": 8, "source": alias("case.nrrd")}
    assert "prior" not in record


def test_plain_leaves_ordinary_text_alone():
    assert plain({"note": "lam / rho", "unit": "1/mm", "flag": True, "none": None, 3: np.int64(4)}) == {
        "note": "lam / rho",
        "unit": "1/mm",
        "flag": True,
        "none": None,
        "3": 4,
    }
