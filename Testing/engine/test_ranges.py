"""Numbers beyond what can be computed with: refused by name, and no result that is not finite is ever saved."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.config import ReconSettings
from DiffusionMBIRLib.errors import EngineError, InputError
from DiffusionMBIRLib.geometry import Grid, ParallelBeam
from DiffusionMBIRLib.reconstruction import reconstruct
from DiffusionMBIRLib.scans import KSpace, Measurement
from Testing.engine.helpers import body

SCAN = mbir.simulate(body((2, 16, 16)), views=6)
SETTINGS = ReconSettings(method="fbp", steps=3, start_sweeps=2, sirt_iterations=5)


@pytest.mark.parametrize(
    ("field", "value"),
    [("mu_water_per_mm", 1e-30), ("mu_water_per_mm", 1e30), ("photons", 1e30), ("photons", 1e-30),
     ("electronic_noise", 1e30)],
)  # fmt: skip
def test_a_number_of_a_scan_that_is_out_of_range_is_named(field, value):
    with pytest.raises(InputError, match=rf"{field} must lie between"):
        replace(SCAN, **{field: value})


@pytest.mark.parametrize("value", [1e30, 1e-30])
def test_a_length_that_is_out_of_range_is_named(value):
    with pytest.raises(InputError, match=r"grid.spacing_mm (must lie between|holds a value beyond)"):
        Grid((2, 4, 4), (value, value, value))
    with pytest.raises(InputError, match=r"geometry.pitch_mm (must lie between|holds a value beyond)"):
        ParallelBeam((0.0, 90.0), 4, value)


def test_a_place_or_angle_that_is_out_of_range_is_named():
    with pytest.raises(InputError, match=r"grid.origin_mm holds a value beyond"):
        Grid((2, 4, 4), origin_mm=(0.0, 0.0, 1e30))
    with pytest.raises(InputError, match=r"geometry.angles_deg holds a value beyond"):
        ParallelBeam((0.0, -1e30), 4, 1.0)
    with pytest.raises(InputError, match=r"geometry.offset_mm must hold numbers"):
        ParallelBeam((0.0,), 4, 1.0, offset_mm=10**400)


def test_data_that_are_no_line_integrals_are_named():
    with pytest.raises(InputError, match=r"data holds line integrals up to 1e\+30"):
        replace(SCAN, data=np.full_like(SCAN.data, 1e30))


@pytest.mark.parametrize("value", [1e30, 1e-30])
def test_kspace_that_is_out_of_range_is_named(value):
    data = np.zeros((1, 1, 8, 8), np.complex64)
    data[..., 4, 4] = value
    with pytest.raises(InputError, match=r"the largest value of data must lie between"):
        KSpace.zero_filled(data, Grid((1, 8, 8)), name="scan")


@pytest.mark.parametrize("method", ["fbp", "sirt", "admm-tv"])
@pytest.mark.parametrize("level", [0.0, 1.0, -1.0, 1e6])
def test_constant_data_end_in_finite_numbers(method, level):
    scan = replace(SCAN, data=np.full_like(SCAN.data, level))
    result = reconstruct(scan, settings=replace(SETTINGS, method=method))
    assert np.isfinite(result.volume.array).all()
    assert math.isfinite(result.residual)
    if not level:
        assert result.residual == 0.0


def test_opaque_rays_of_counted_photons_end_in_finite_numbers():
    scan = replace(SCAN, data=np.full_like(SCAN.data, 1e6), photons=1e-3)
    result = reconstruct(scan, settings=replace(SETTINGS, method="admm-tv"))
    assert np.isfinite(result.volume.array).all()


def test_a_result_that_is_not_finite_is_an_error_of_the_engine(monkeypatch):
    prior = mbir.load_prior("ct-compact-v1")
    monkeypatch.setattr(prior, "denoise", lambda x, sigma: torch.full_like(x, torch.nan))
    with pytest.raises(EngineError, match=r"values of the result are not finite"):
        reconstruct(SCAN, prior=prior, settings=replace(SETTINGS, method="dds"))


def test_a_scan_at_the_ends_of_the_ranges_is_taken():
    assert isinstance(replace(SCAN, mu_water_per_mm=1e-5, photons=1e15, electronic_noise=1e-3), Measurement)
