"""Whether a prior repeats its training images."""

from __future__ import annotations

import pytest
import torch

from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.training.memorisation import check_patches, nearest_patches
from Testing.engine.training_toys import stack


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
    assert found is not None
    assert found.ratio < 0.1
    assert (found.copies, found.empty) == (1.0, 0.0)
    fresh = check_patches(textured(10).levels[0][:, None].float(), unseen, known, 1.0)
    assert fresh is not None
    assert 0.7 < fresh.ratio < 1.4
    with pytest.raises(InputError, match="no training slice with pixels of about 4 mm"):
        nearest_patches(copies, known, 4.0)
    with pytest.raises(InputError, match="at least one sample"):
        check_patches(copies[:0], unseen, known, 1.0)


def test_distances_of_patches_are_root_mean_squares():
    known = textured(0)
    shifted = known.levels[0][:1, None].float() + 0.25
    assert nearest_patches(shifted, [known], 1.0) == pytest.approx(0.25, rel=0.02)


def test_empty_samples_tell_nothing():
    known, unseen = [textured(k) for k in range(2)], textured(9).levels[0][:, None].float()
    faint = 0.01 * unseen[:2]
    assert check_patches(faint, unseen, known, 1.0) is None
    found = check_patches(torch.cat([faint, unseen[:2]]), unseen, known, 1.0)
    assert found is not None
    assert found.empty == 0.5
    assert 0.7 < found.ratio < 1.4
