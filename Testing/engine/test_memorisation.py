"""Whether a prior repeats its training images."""

from __future__ import annotations

import pytest
import torch

from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.training.memorisation import (
    check_memorisation,
    check_patches,
    nearest_distances,
    nearest_patches,
)
from Testing.engine.training_toys import stack


def test_memorisation_tells_copies_from_new_images():
    known, unseen = [stack(f"p{k}", k, slices=20, size=64) for k in range(3)], [stack("q", 9, slices=20, size=64)]
    copies = known[1].levels[1][3:9, None].float()
    found = check_memorisation(copies.flip(-1) + 1e-3 * torch.randn(copies.shape), unseen, known)
    assert found.ratio < 0.1
    assert found.copies == 1.0
    fresh = check_memorisation(stack("r", 10, slices=20, size=64).levels[1][:, None], unseen, known)
    assert 0.3 < fresh.ratio < 3
    assert fresh.copies < 0.5
    assert nearest_distances(copies[:1] + 0.5, known[1:2]) == pytest.approx(0.5, abs=0.25)
    with pytest.raises(InputError, match="at least one sample"):
        check_memorisation(copies[:0], unseen, known)
    with pytest.raises(InputError, match="no training slice"):
        nearest_distances(copies, [])


def textured(seed: int):
    """A stack whose slices are alike nowhere."""
    made = stack(f"p{seed}", slices=4, size=72)
    noise = torch.rand(made.levels[0].shape, generator=torch.Generator().manual_seed(seed))
    made.levels = [noise.half(), torch.nn.functional.avg_pool2d(noise[:, None], 2)[:, 0].half()]
    return made


def test_parts_of_training_slices_are_found_wherever_they_lie():
    known, unseen = [textured(k) for k in range(3)], textured(9).levels[0][:, None, :40, :40].float()
    copies = torch.stack([known[k].levels[0][k, 3 + k : 47 + k, 7:51].float() for k in range(3)])[:, None]
    copies = torch.cat([copies, copies.flip(-1)]) + 0.01 * torch.randn(6, 1, 44, 44)
    assert float(nearest_patches(copies, known, 1.0).max()) < 0.02
    assert float(nearest_patches(unseen, known, 1.0).min()) > 0.2
    found = check_patches(copies, unseen, known, 1.1)
    assert found.ratio < 0.1
    assert found.copies == 1.0
    with pytest.raises(InputError, match="no training slice with pixels of about 4 mm"):
        nearest_patches(copies, known, 4.0)
    with pytest.raises(InputError, match="at least one sample"):
        check_patches(copies[:0], unseen, known, 1.0)


def test_distances_of_patches_are_root_mean_squares():
    known = textured(0)
    shifted = known.levels[0][:1, None].float() + 0.25
    assert nearest_patches(shifted, [known], 1.0) == pytest.approx(0.25, rel=0.02)
