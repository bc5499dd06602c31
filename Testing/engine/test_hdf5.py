"""HDF5 files that name other files, or announce what is not there."""

from __future__ import annotations

import os

import h5py
import numpy as np
import pytest

import DiffusionMBIRLib as mbir
from Testing.engine.scans import counted, lines_of

ANGLES = np.arange(30) * 6.0


def exchange(path):
    counts, flat, dark = counted(lines_of(ANGLES))
    with h5py.File(path, "w") as file:
        fields = {"data": counts, "data_white": flat[None], "data_dark": dark[None], "theta": ANGLES}
        for key, values in fields.items():
            file[f"exchange/{key}"] = values
    return path


def refusal(path) -> str:
    with pytest.raises(mbir.InputError) as caught:
        mbir.read(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("place", ["exchange/data", "exchange/theta", "exchange"])
@pytest.mark.parametrize("through", ["", "soft link"])
def test_links_to_other_files_are_not_followed(tmp_path, place, through):
    path, target = exchange(tmp_path / "a.h5"), exchange(tmp_path / "b.h5")
    with h5py.File(path, "r+") as file:
        del file[place]
        link = h5py.ExternalLink(str(target), f"/{place}")
        file["elsewhere" if through else place] = link
        if through:
            file[place] = h5py.SoftLink("/elsewhere")
    assert "another file" in refusal(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_link_to_a_pipe_does_not_wait(tmp_path):
    path = exchange(tmp_path / "a.h5")
    os.mkfifo(tmp_path / "pipe")
    with h5py.File(path, "r+") as file:
        del file["exchange/theta"]
        file["exchange/theta"] = h5py.ExternalLink(str(tmp_path / "pipe"), "/theta")
    assert "another file" in refusal(path)


def test_raw_data_of_other_files_are_not_read(tmp_path):
    path = exchange(tmp_path / "a.h5")
    (tmp_path / "secret").write_bytes(bytes(8 * len(ANGLES)))
    with h5py.File(path, "r+") as file:
        del file["exchange/theta"]
        stored = [(str(tmp_path / "secret"), 0, h5py.h5f.UNLIMITED)]
        file.create_dataset("exchange/theta", shape=ANGLES.shape, dtype=float, external=stored)
    assert "another file" in refusal(path)


def test_links_inside_the_file_are_followed(tmp_path):
    path = exchange(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        file.move("exchange/theta", "angles/list")
        file["angles/soft"] = h5py.SoftLink("list")
        file["exchange/theta"] = h5py.SoftLink("/angles/soft")
    assert mbir.read(path).geometry.angles_deg == pytest.approx(tuple(ANGLES))
    with h5py.File(path, "r+") as file:
        del file["exchange/theta"]
        file["exchange/theta"] = h5py.SoftLink("/exchange/theta")
    assert "circle" in refusal(path)


def test_what_was_never_written(tmp_path):
    path = exchange(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        del file["exchange/data"]
        file.create_dataset("exchange/data", shape=(30, 3, 64), dtype="f4", chunks=(1, 3, 64))
    assert path.stat().st_size < 200_000
    assert "never written" in refusal(path)
    with h5py.File(path, "r+") as file:
        del file["exchange/data"]
        data = file.create_dataset("exchange/data", shape=(30, 10**6, 10**6), dtype="f4", chunks=(1, 100, 100))
        data[0, 0, 0] = 1
    assert "GB" in refusal(path)
