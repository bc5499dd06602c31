"""Damaged files of every kind: read, or refused in one line; and what the driver found before."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest

from Testing.engine.helpers import ROOT
from Testing.fuzz.kinds import KINDS
from Testing.fuzz.mutations import DAMAGES, mutated
from Testing.fuzz.worker import tried


@pytest.mark.slow
def test_damaged_files_are_read_or_refused_in_one_line():
    command = [sys.executable, "-m", "Testing.fuzz", "--seconds", "60", "--most", "5000", "--seed", "7000000"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert int(done.stdout.split()[0]) > len(KINDS)


def test_the_same_seed_damages_in_the_same_way():
    content = bytes(range(256)) * 4 + b'{"views": 12, "name": "a scan"}'
    for damage in DAMAGES:
        made = [damage(content, random.Random(3)) for _ in range(2)]
        assert made[0] == made[1] != content
    assert mutated(content, random.Random(1)) != mutated(content, random.Random(2))
    assert all(mutated(b"", random.Random(k)) is not None for k in range(200))


FOUND = [
    ("volume.nii", 5), ("scan.npz, members", 6), ("MATLAB", 6), ("volume.mha", 18), ("volume.mha", 64),
    ("TIFF folder, view", 68), ("DICOM", 1011), ("DICOM", 1053), ("volume.nii", 1013), ("fastMRI", 1044),
    ("twix", 20091),
    ("DICOM", 20097), ("array", 20163), ("DICOM", 7000210), ("scan.npz", 7000758),
    ("scan.h5", 7000284), ("scan.h5", 7000625), ("k-space.h5", 20202), ("weights of old torch", 218),
    ("weights of old torch", 230), ("TOML, image", 41000122), ("twix", 41000381), ("twix", 41001165),
    ("k-space.h5", 41000435), ("NXtomo", 41000634), ("Bruker", 41000465), ("ISMRMRD", 41001027),
    ("RTK", 43000292), ("volume.nrrd", 43000832),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "seed"), FOUND)
def test_what_was_found_stays_mended(tmp_path, kind, seed):
    place = KINDS[kind].make(tmp_path).relative_to(tmp_path)
    assert tried(kind, seed, tmp_path, place) == ""
