"""The samples that no file holds: what is reconstructed from them is the volume that came with them."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import numpy as np
import pytest

from DiffusionMBIRGui.inputs import complex_coils, kspace_input, sinogram_input
from DiffusionMBIRGui.samples import add_to
from DiffusionMBIRGui.samples_built import BUILT
from DiffusionMBIRGui.volumes import grid_of, voxels

pytestmark = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed here")


@pytest.fixture(params=BUILT, ids=lambda built: built.source)
def sample(request, desk):
    """(what it is, its node, the node of the volume behind it)"""
    loaded = request.param.load()
    node = add_to(desk.scene, loaded, request.param.title(), request.param.name)
    return request.param, node, add_to(desk.scene, loaded.reference, "truth", "truth")


def test_the_volume_behind_a_sample_is_what_is_reconstructed(sample):
    import DiffusionMBIRLib as mbir

    built, node, truth = sample
    few = slice(4)  # of the slices, in the interest of time
    if built.source == "sinogram":
        data, geometry, whole = sinogram_input(node, 0, 180.0)
        grid = replace(whole, shape=(4, *whole.shape[1:]))
        scan = mbir.Measurement(np.array(data[few]), geometry, grid, task=built.task, name=node.GetName())
        method, least_db = "sirt", 25.0
    else:
        array, whole = kspace_input(node)
        grid = replace(whole, shape=(4, *whole.shape[1:]))
        scan = mbir.KSpace.zero_filled(complex_coils(array[few]), grid, name=node.GetName())
        method, least_db = "sense-cg", 25.0
    assert whole == grid_of(truth)
    found = mbir.reconstruct(scan, settings=mbir.ReconSettings(method=method, sirt_iterations=40, device="cpu"))

    def psnr(array: np.ndarray) -> float:
        known = mbir.Volume(np.ascontiguousarray(array), grid, unit=found.volume.unit)
        return mbir.evaluate(found.volume, known)["axial"]["psnr"]

    known = voxels(truth)[few]
    assert psnr(known) > least_db
    assert psnr(known) > max(psnr(known[:, :, ::-1]), psnr(known[:, ::-1])) + 0.5  # and not its mirror image
