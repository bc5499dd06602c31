"""MATLAB files of version 5 to 7: the numbers that another program wrote, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.io import matlab5

scipy_io = pytest.importorskip("scipy.io")
TYPES = ("f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "c16", "c8", "?")


def written(path, compressed: bool) -> dict:
    counts = np.random.default_rng(3).integers(0, 100, (3, 4, 5))
    values: dict = {f"of_{kind.replace('?', 'flag')}": counts.astype(kind) for kind in TYPES}
    values |= {
        "signal": counts - 1j * counts[::-1],
        "empty": np.zeros((0, 3)),
        "one": 3.0,
        "a_longer_name_than_most": 1j,
    }
    others: dict = {"text": "text", "structure": {"a": 1}, "cells": np.array([1, "a"], dtype=object)}
    scipy_io.savemat(path, {**others, **values}, do_compression=compressed)
    return values


@pytest.mark.parametrize("compressed", [False, True])
def test_every_type_of_number(tmp_path, compressed):
    path = tmp_path / "a.mat"
    values = written(path, compressed)
    with matlab5.opened(path) as file:
        found = {one.name: one for one in file.variables}
        assert {"text", "structure", "cells"} == {name for name, one in found.items() if not one.type}
        for name, value in values.items():
            read = file.values(found[name])
            assert read.shape == np.atleast_2d(value).shape
            assert (read.dtype.kind == "c") is np.iscomplexobj(value)
            np.testing.assert_array_equal(read, np.atleast_2d(value))


@pytest.mark.parametrize("compressed", [False, True])
def test_damage_is_said(tmp_path, compressed):
    """Whatever byte is wrong, the file is read or refused; nothing else happens."""
    path = tmp_path / "a.mat"
    written(path, compressed)
    raw = path.read_bytes()
    generator = np.random.default_rng(7)
    refused = 0
    for n in range(300):
        damaged = bytearray(raw[: generator.integers(len(raw))] if n % 3 == 0 else raw)
        for at in generator.integers(0, len(damaged), 5 if damaged else 0):
            damaged[at] = generator.integers(256)
        path.write_bytes(damaged)
        try:
            with matlab5.opened(path) as file:
                for one in file.variables:
                    if one.type:
                        file.values(one)
        except InputError:
            refused += 1
    assert refused > 100
    path.write_bytes(b"\0" * 20 + raw)  # version 4 begins with zeros
    with pytest.raises(InputError, match="save it with -v7"), matlab5.opened(path):
        pass
