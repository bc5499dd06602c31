"""HDF5 files that name other files, or announce what is not there."""

from __future__ import annotations

import os
import subprocess
import sys
from unittest import mock

import h5py
import numpy as np
import pytest

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.formats import write
from DiffusionMBIRLib.io import hdf5_heap
from DiffusionMBIRLib.io.hdf5 import opened
from DiffusionMBIRLib.io.hdf5_heap import walk_ends
from Testing.engine.helpers import ROOT, body
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


def scan_file(path):
    write(mbir.simulate(body((2, 8, 8)), views=4), path)
    return path


def test_a_heap_that_leads_nowhere_is_refused(tmp_path):
    """libhdf5 would walk it for ever: a step of 0 over what is free, and one that wraps round."""
    path = scan_file(tmp_path / "a.h5")
    whole = path.read_bytes()
    at = whole.index(b"GCOL")
    place = at + 16
    while whole[place : place + 2] != b"\0\0":
        last, place = place, place + 16 + (int.from_bytes(whole[place + 8 : place + 16], "little") + 7) // 8 * 8
    assert place < at + 4096
    for where, size in ((place, 0), (last, 2**64 - 24)):
        path.write_bytes(whole[: where + 8] + size.to_bytes(8, "little") + whole[where + 16 :])
        assert "a heap of its texts has no end" in refusal(path)
    path.write_bytes(whole)
    assert mbir.read(path).geometry.views == 4


@pytest.mark.parametrize("lengths", [4, 8])
def test_heaps_of_every_width_of_lengths_are_read(tmp_path, lengths):
    create = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    create.set_sizes(8, lengths)
    path = tmp_path / "a.h5"
    with h5py.File(h5py.h5f.create(bytes(path), h5py.h5f.ACC_TRUNC, create)) as file:
        for k in range(300):
            file.attrs[f"text {k % 40}"] = "x" * k
    with opened(path) as fields:
        assert len(fields.attribute("/", "text 19")) == 299
    heap = bytearray(path.read_bytes())
    heap = heap[heap.index(b"GCOL") :][:4096]
    assert walk_ends(memoryview(heap), lengths)
    heap[16:18], heap[24 : 24 + lengths] = b"\0\0", bytes(lengths)
    assert not walk_ends(memoryview(heap), lengths)


def test_large_arrays_come_whole(tmp_path):
    """Over the limit of one call of the system."""
    path, values = tmp_path / "a.h5", np.arange(3_000_000, dtype=np.float64)
    with h5py.File(path, "w") as file:
        file["whole"] = values
        file.create_dataset("parts", data=values, chunks=(70_000,), compression="gzip")
        file.create_dataset("lists", (3,), h5py.vlen_dtype(np.float64))[:] = [values[:9], values[9:99999], values[:0]]
    with mock.patch.object(hdf5_heap, "_ONCE", 1 << 20), opened(path) as fields:
        np.testing.assert_array_equal(fields.dataset("whole")[()], values)
        np.testing.assert_array_equal(fields.dataset("parts")[()], values)
        assert [len(part) for part in fields.file["lists"][()]] == [9, 99990, 0]


def test_what_fails_beside_hdf5_is_not_put_down_to_the_file(tmp_path):
    path = exchange(tmp_path / "a.h5")
    with pytest.raises(ValueError, match=r"^could not convert"), opened(path):
        float("three")
    with pytest.raises(KeyError), opened(path):
        dict[str, int]()["a"]
    with pytest.raises(mbir.InputError, match="cannot be read as HDF5"), opened(path) as fields:
        fields.file["nothing"]


def test_a_file_that_is_being_written_is_not_read(tmp_path):
    """By another program; what this one writes is read as it stands."""
    path = tmp_path / "a.h5"
    code = "from DiffusionMBIRLib.io.hdf5 import *\n"
    code += f"with opened(Path({str(path)!r})) as fields:\n  print(fields.names('/'))"
    with h5py.File(path, "w") as file:
        file["a"] = 1
        with opened(path) as fields:
            assert fields.names("/") == ["a"]
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert "cannot be read as HDF5" in done.stderr
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout == "['a']\n"


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
