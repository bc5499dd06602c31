"""What priors are trained on: volumes that are found and read, the split by patient, and the images drawn from them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.geometry import Grid
from DiffusionMBIRLib.models import MR_VALUE, ValueScale
from DiffusionMBIRLib.training.discs import MATERIAL, RADII, RIM, holed_disc
from DiffusionMBIRLib.training.settings import TrainSettings
from DiffusionMBIRLib.training.shapes import random_shapes
from DiffusionMBIRLib.training.slices import NoisySteps, SliceSampler, fixed_images, pixel_range, stack_weights
from DiffusionMBIRLib.training.stacks import Stack, find_volumes, load_stacks, patient_of, split_by_patient
from DiffusionMBIRLib.volume import Volume
from Testing.engine.training_toys import CT, discs, stack, stacks, write_volumes

SETTINGS = TrainSettings(images=48, batch=4, size=16)


def test_finds_every_kind_of_volume_once(tmp_path):
    write_volumes(tmp_path / "a", 2)
    write_volumes(tmp_path / "a", 1, ".nii.gz")
    series = tmp_path / "a" / "1.2.840.1"
    series.mkdir()
    for k in range(3):
        (series / f"I{k:04d}").write_bytes(bytes(128) + b"DICM" + bytes(8))
    (tmp_path / "a" / "with-suffix").mkdir()
    (tmp_path / "a" / "with-suffix" / "1.dcm").write_bytes(b"old export")
    for other in ("notes.txt", "DICOMDIR", ".hidden.nrrd"):
        (tmp_path / "a" / other).write_bytes(bytes(128) + b"DICM" if other == "DICOMDIR" else b"text")
    found = find_volumes([tmp_path / "a", tmp_path / "a" / "p0_scan.nrrd", tmp_path], "*")
    names = [p.relative_to(tmp_path / "a").as_posix() for p in found]
    assert names == ["p0_scan.nii.gz", "p0_scan.nrrd", "p1_scan.nrrd", "1.2.840.1", "with-suffix"]
    assert [p.name for p in find_volumes([tmp_path], "p1*")] == ["p1_scan.nrrd"]
    assert patient_of(series, None) == "1.2.840.1"


def test_folders_without_volumes_are_named(tmp_path):
    with pytest.raises(InputError, match=r"no volume found that fits '\*\.mha'"):
        find_volumes([tmp_path], "*.mha")
    with pytest.raises(InputError, match="nowhere"):
        find_volumes([tmp_path / "nowhere"], "*")


def test_patients_from_names_and_paths():
    assert patient_of(Path("x/A12_left.nii.gz"), None) == "A12_left"
    assert patient_of(Path("x/A12_left.nii.gz"), r"^(A\d+)_") == "A12"
    assert patient_of(Path("x/B7/ct.nii.gz"), r"B\d") == "B7"
    with pytest.raises(InputError, match="does not match"):
        patient_of(Path("x/ct.nrrd"), r"Q\d")
    with pytest.raises(InputError, match="no regular expression"):
        patient_of(Path("x/ct.nrrd"), "(")


@pytest.mark.parametrize("suffix", [".nrrd", ".nii", ".nii.gz", ".mha"])
def test_stack_from_a_file(tmp_path, suffix):
    array = discs(0).astype(np.int16)
    array[0, 0, :3] = (-3024, -1010, 4000)
    path = tmp_path / f"p1{suffix}"
    Volume(array, Grid(array.shape, (0.7, 0.7, 2.0))).save(path)
    loaded = load_stacks(path, None, CT)[0]
    assert loaded.patient == "p1"
    assert loaded.spacing_mm == pytest.approx(0.7)
    assert [tuple(level.shape) for level in loaded.levels] == [(5, 24, 24), (5, 12, 12)]
    assert loaded.levels[0][0, 0, :3].tolist() == pytest.approx([0.0, -0.005, 2.0355], abs=1e-3)


def test_stack_in_another_unit_is_not_clipped_as_hounsfield(tmp_path):
    array = np.full((2, 16, 16), 5000, dtype=np.int16)
    Volume(array, Grid(array.shape)).save(tmp_path / "m.nrrd")
    assert float(load_stacks(tmp_path / "m.nrrd", None, ValueScale(0.0, 5000.0, "a.u."))[0].levels[0].max()) == 1.0


def test_mr_counts_in_multiples_of_its_percentile(tmp_path):
    array = np.random.default_rng(0).gamma(2.0, 100.0, (20, 32, 24)).astype(np.float32)
    for gain in (1.0, 37.0):
        Volume(array * gain, Grid(array.shape, (1.0, 1.0, 3.0)), unit="").save(tmp_path / "m.nrrd")
        (loaded,) = load_stacks(tmp_path / "m.nrrd", None, MR_VALUE)
        values = loaded.levels[0].float().numpy()
        assert np.percentile(values, 99.5) == pytest.approx(1.0, abs=0.01)
        assert np.corrcoef(values.ravel(), array.ravel())[0, 1] > 0.999
    Volume(np.zeros((20, 32, 24), np.float32), Grid((20, 32, 24))).save(tmp_path / "void.nrrd")
    with pytest.raises(InputError, match=r"void\.nrrd: nearly all voxels are zero"):
        load_stacks(tmp_path / "void.nrrd", None, MR_VALUE)


@pytest.mark.parametrize(
    ("spacing_mm", "planes"),
    [
        ((1.0, 1.0, 1.1), [(20, 32, 24), (32, 20, 24), (24, 20, 32)]),
        ((1.0, 1.0, 3.0), [(20, 32, 24)]),
        ((3.0, 1.0, 1.0), [(24, 20, 32)]),  # acquired sagittally
    ],
)
def test_mr_is_cut_in_the_planes_that_were_acquired(tmp_path, spacing_mm, planes):
    array = np.random.default_rng(0).random((20, 32, 24), np.float32)
    Volume(array, Grid(array.shape, spacing_mm), unit="").save(tmp_path / "m.nrrd")
    loaded = load_stacks(tmp_path / "m.nrrd", None, MR_VALUE)
    assert [tuple(stack.levels[0].shape) for stack in loaded] == planes


def test_images_without_a_unit_vary_in_brightness_and_are_turned():
    bright = torch.zeros(1, 16, 16)
    bright[:, :8] = 1.0  # the upper half
    stack = Stack("p", "p", 1.0, [bright.half(), bright.half()])
    images, _ = SliceSampler([stack], size=16, value=MR_VALUE).batch(0, 64)
    tops = images.amax(dim=(1, 2, 3))
    assert float(tops.min()) < 0.9 < 1.1 < float(tops.max())
    leftmost = (images[:, 0, :, 0] > 0).float().mean(dim=1)
    assert set(np.round(leftmost[(images[:, 0, 0, 0] > 0)].numpy(), 1)) >= {0.5, 1.0}
    plain, _ = SliceSampler([stack], size=16, value=MR_VALUE, augment=False).batch(0, 8)
    assert torch.equal(plain, bright.expand(8, 1, 16, 16))


def test_bad_volumes_are_named(tmp_path):
    (tmp_path / "broken.nrrd").write_bytes(b"NRRD0004\n")
    with pytest.raises(InputError, match=r"broken\.nrrd"):
        load_stacks(tmp_path / "broken.nrrd", None, CT)
    Volume(np.zeros((4, 8, 30), np.float32), Grid((4, 8, 30))).save(tmp_path / "small.nrrd")
    with pytest.raises(InputError, match=r"small\.nrrd.*8 x 30"):
        load_stacks(tmp_path / "small.nrrd", None, CT)


def test_split_never_mixes_patients():
    many = [stack(f"p{k % 7}", k, slices=1) for k in range(20)]
    for chosen, fraction in (((), 0.15), ((), 0.5), (("p0", "p3"), 0.15)):
        learn, rest = split_by_patient(many, chosen, fraction)
        assert len(learn) + len(rest) == 20
        assert not {s.patient for s in learn} & {s.patient for s in rest}
        if chosen:
            assert {s.patient for s in rest} == set(chosen)
    with pytest.raises(InputError, match=r"'p9' is not a patient; patients: p0, p1"):
        split_by_patient(many, ["p9"], 0.15)
    with pytest.raises(InputError, match="1 patient"):
        split_by_patient([stack("p0"), stack("p0")], [], 0.15)


def test_batches_depend_on_seed_rank_and_step_alone():
    def sampler(seed=0, rank=0):
        return SliceSampler(stacks(), size=16, value=CT, seed=seed, rank=rank)

    def same(first, second):
        return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))

    later = sampler()
    later.batch(3, 4)
    assert same(sampler().batch(7, 6), later.batch(7, 6))
    for other in (sampler(seed=1).batch(7, 6), sampler(rank=1).batch(7, 6), sampler().batch(8, 6)):
        assert not torch.equal(sampler().batch(7, 6)[0], other[0])
    batch, pixel_mm = sampler().batch(0, 40)
    assert batch.shape == (40, 1, 16, 16)
    assert batch.dtype == pixel_mm.dtype == torch.float32
    assert -0.02 <= float(batch.min()) <= float(batch.max()) <= 1.0
    assert same(NoisySteps(sampler(), SETTINGS)[5], NoisySteps(sampler(), SETTINGS)[5])


def test_small_images_are_set_into_air():
    images, _ = SliceSampler([stack("p", size=16)], size=32, value=CT, augment=False).batch(0, 8)
    assert torch.all(images[:, :, :8] == 0)
    held, pixel_mm = fixed_images([stack("p", size=16)], size=32, value=CT, count=4)
    assert held.shape == (4, 1, 32, 32)
    assert pixel_mm.tolist() == [2.0, 2.0, 1.0, 1.0]
    assert torch.all(held[:, :, :8] == 0)
    assert len(fixed_images(stacks(6), size=16, value=CT, count=5)[0]) == 5


def disc(radius_mm: float, spacing_mm: float, aspect: float = 1.0, size: int = 160) -> Stack:
    """One slice with a disc of 1 in the middle, whatever its pixels."""
    axis = (torch.arange(size) - (size - 1) / 2) * spacing_mm
    r, c = axis[:, None] * math.sqrt(aspect), axis[None] / math.sqrt(aspect)
    full = (torch.hypot(r, c) < radius_mm).float()[None]
    half = torch.nn.functional.avg_pool2d(full[:, None], 2)[:, 0]
    return Stack("p", "p", spacing_mm, [full.half(), half.half()], aspect)


@pytest.mark.parametrize("aspect", [1.0, 1.3])
def test_images_are_told_the_size_of_their_pixels(aspect):
    """The area of a disc in pixels tells their size, also where the slices' own are not square."""
    sampler = SliceSampler([disc(20.0, 0.8, aspect)], size=176, value=CT)
    images, pixel_mm = sampler.batch(0, 60)
    known = pixel_mm > 0
    assert 0.02 < float((~known).float().mean()) < 0.25
    area_mm2 = images[known].sum(dim=(1, 2, 3)) * pixel_mm[known] ** 2
    torch.testing.assert_close(area_mm2, torch.full_like(area_mm2, math.pi * 20.0**2), rtol=0.03, atol=0)
    assert float(pixel_mm[known].min()) < 0.81
    assert float(pixel_mm.max()) > 1.5


def test_resampled_edges_are_means_over_pixels():
    """A pattern finer than the new pixels leaves its mean, not an alias."""
    fine = (torch.arange(256) % 2).float().expand(1, 256, 256)
    half = torch.full((1, 128, 128), 0.5)
    sampler = SliceSampler([Stack("p", "p", 1.0, [fine.half(), half.half()], 1.2)], size=32, value=CT)
    images, pixel_mm = sampler.batch(0, 40)
    coarse = images[pixel_mm > 1.9]
    assert len(coarse) > 5
    assert float((coarse[..., 8:24, 8:24] - 0.5).abs().max()) < 0.01


def test_shares_say_how_often_volumes_are_seen():
    many = [stack(f"limb{k}", k) for k in range(8)] + [stack("chest", 9), stack("native_chest", 10)]
    many.append(Stack("chest", "chest.nrrd", 1.0, many[8].levels, across=True))
    weights = stack_weights(many, {"limb": 0.2, "native": 0.3}, across=0.1)
    assert weights.sum() == pytest.approx(1)
    assert weights[10] == pytest.approx(0.1)
    assert weights[:8].sum() / weights[:10].sum() == pytest.approx(0.2 / (0.2 + 0.3 + 0.25))
    assert stack_weights(many[:9], {}, 0.1) == pytest.approx(np.full(9, 1 / 9))
    for shares, reason in (({"leg": 0.1}, "'leg'"), ({"limb": 1.2}, "at most 1"), ({"limb": -0.1}, "0 or more")):
        with pytest.raises(InputError, match=reason):
            stack_weights(many, shares, 0.1)


def test_volumes_are_cut_across_their_slices_where_that_makes_sense(tmp_path):
    array = discs(0, slices=20).astype(np.int16)
    for z, planes in ((1.0, 3), (1.3, 3), (2.0, 1)):
        Volume(array, Grid(array.shape, (1.0, 1.0, z))).save(tmp_path / "p.nrrd")
        found = load_stacks(tmp_path / "p.nrrd", None, CT, across=True)
        assert [s.across for s in found] == [False, True, True][:planes]
        assert [tuple(s.levels[0].shape) for s in found] == [(20, 24, 24), (24, 20, 24), (24, 20, 24)][:planes]
        assert [s.aspect for s in found] == pytest.approx([1.0, z, z][:planes])
        assert [s.spacing_mm for s in found] == pytest.approx([1.0, math.sqrt(z), math.sqrt(z)][:planes])
        assert len(load_stacks(tmp_path / "p.nrrd", None, CT)) == 1


def test_sizes_vary_and_pixels_a_step_do_not():
    settings = TrainSettings(batch=8, size=32)
    steps = NoisySteps(SliceSampler(stacks(), size=32, value=CT), settings, multiple=4)
    shapes = {tuple(steps[k][0].shape) for k in range(24)}
    assert shapes == {(14, 1, 24, 24), (8, 1, 32, 32), (4, 1, 48, 48)}
    assert steps.size_of(3) == NoisySteps(SliceSampler(stacks(), size=32, value=CT, rank=1), settings, 4).size_of(3)


def test_each_step_sees_all_levels_of_noise():
    settings = TrainSettings(batch=64, size=16, vary_size=False)
    steps = NoisySteps(SliceSampler(stacks(), size=16, value=CT), settings)
    for k in range(3):
        deviations = ((steps[k][1] / settings.noise_median).log() / settings.noise_spread).sort().values
        expected = torch.special.ndtri((torch.arange(64) + 0.5) / 64)
        assert float((deviations - expected)[4:-4].abs().max()) < 0.15
    low = NoisySteps(steps.sampler, TrainSettings(batch=64, size=16, vary_size=False, low_noise=0.5))[0][1]
    assert 0.4 < float((low < 0.06).float().mean()) < 0.8


def test_synthetic_shapes():
    images = [random_shapes(32, np.random.default_rng(k), metal=True) for k in range(40)]
    assert all(image.shape == (32, 32) and float(image.min()) >= 0 for image in images)
    assert 0.2 < np.mean([float(image.max()) > 1.9 for image in images]) < 0.8
    assert max(float(random_shapes(32, np.random.default_rng(k), metal=False).max()) for k in range(40)) <= 1.25
    drawn, _ = SliceSampler(stacks(), size=16, value=CT, shapes=1.0).batch(0, 4)
    assert drawn.shape == (4, 1, 16, 16)


def test_discs_with_holes():
    """Of one material, holes within the rim, the same at any size, and other ones each time."""
    drawn = [holed_disc(48, np.random.default_rng(k)) for k in range(30)]
    axis = (torch.arange(48) + 0.5) / 24 - 1
    for image in drawn:
        material = float(image.max())
        assert MATERIAL[0] <= material <= MATERIAL[1]
        between = float(((image > 0.1 * material) & (image < 0.9 * material)).float().mean())
        assert between < 0.2  # edges
        solid = image > 0.5 * material
        y, x = (solid.any(1 - k) * axis for k in range(2))
        radius = float(y.max() - y.min() + x.max() - x.min()) / 4
        assert RADII[0] - 0.05 < radius < RADII[1] + 0.05
        far = torch.hypot(axis[:, None] - (y.max() + y.min()) / 2, axis[None] - (x.max() + x.min()) / 2)
        assert bool(solid[(far > radius * (1 - RIM[0]) + 0.04) & (far < radius - 0.04)].all())
    holes = [1 - float((image > 0.25).float().sum()) / (np.pi * 24**2 * 0.92**2) for image in drawn]
    assert np.std(holes) > 0.05
    fine = holed_disc(192, np.random.default_rng(7))
    coarse = torch.nn.functional.avg_pool2d(fine[None], 4)[0]
    assert float((coarse - holed_disc(48, np.random.default_rng(7))).abs().mean()) < 0.01
    images, pixels = SliceSampler([], size=16, value=CT, shapes=1.0, discs=1.0).batch(0, 4)
    assert images.shape == (4, 1, 16, 16)
    assert not pixels.any()
    assert torch.equal(images, SliceSampler([], size=16, value=CT, shapes=1.0, discs=1.0).batch(0, 4)[0])
    assert not torch.equal(images, SliceSampler([], size=16, value=CT, shapes=1.0, discs=1.0).batch(1, 4)[0])


def test_the_range_of_pixels_is_that_of_the_images_drawn():
    drawn = [stack("a", size=200), replace(stack("b", size=96), spacing_mm=0.4)]
    sampler = SliceSampler(drawn, size=16, value=CT)
    sides = torch.cat([sampler.batch(k, 64)[1] for k in range(30)])
    low, high = pixel_range(drawn)
    seen = sides[sides > 0]
    assert low <= seen.min() < 1.1 * low
    assert 0.9 * high < seen.max() <= high + 1e-3
