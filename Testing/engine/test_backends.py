"""Optional back ends of the X-ray transform: what they refuse, and the contract where they are installed."""

from __future__ import annotations

import gc
import math
import sys
from types import SimpleNamespace

import pytest
import torch

from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.geometry import FanBeam, Grid, ParallelBeam, view_angles
from DiffusionMBIRLib.operators import projector
from DiffusionMBIRLib.operators.backends.astra import AstraFanTransform, AstraTransform
from DiffusionMBIRLib.operators.backends.torch_radon import TorchRadonTransform
from DiffusionMBIRLib.operators.stack import SliceProjector
from DiffusionMBIRLib.solvers.direct.parallel import fbp
from Testing.engine.operators_contract import assert_operator

IRREGULAR = (0.0, 12.5, 45.0, 90.0, 91.0, 135.0, 180.0, -37.3, 270.0)
GRIDS = {
    "odd, not square": Grid((3, 17, 23), (1.3, 1.3, 2.5)),
    "one slice": Grid((1, 12, 12)),
    "off the isocentre": Grid((1, 12, 14), isocentre_mm=(2.0, 9.0, 0.0)),
}
NEED = {"astra": "pip install astra-toolbox", "torch-radon": "github.com/matteo-ronchetti/torch-radon"}


def beams(grid: Grid) -> dict[str, ParallelBeam]:
    return {
        "covering": ParallelBeam.covering(grid, IRREGULAR),
        "truncated and shifted": ParallelBeam(IRREGULAR, 7, 0.9, offset_mm=1.7),
        "fine": ParallelBeam(view_angles(5), 60, 0.31, offset_mm=-0.4),
        "coarse": ParallelBeam((33.0,), 9, 4.0),
    }


@pytest.fixture
def astra_installed() -> None:
    pytest.importorskip("astra", reason="the ASTRA Toolbox is not installed")


@pytest.mark.parametrize("backend", NEED)
def test_missing_package_is_named_with_how_to_get_it(backend, monkeypatch):
    for module in ("astra", "torch_radon", "torch_radon_cuda"):
        monkeypatch.setitem(sys.modules, module, None)  # as if it were not there
    grid = Grid((2, 8, 8))
    with pytest.raises(InputError, match=NEED[backend]):
        projector(ParallelBeam.covering(grid, (0.0,)), grid, backend=backend)


def test_optional_packages_are_not_imported_unasked():
    grid = Grid((1, 4, 4))
    before = {"astra", "torch_radon"} & set(sys.modules)
    projector(ParallelBeam.covering(grid, (0.0,)), grid)
    assert {"astra", "torch_radon"} & set(sys.modules) == before


# --- ASTRA


@pytest.mark.usefixtures("astra_installed")
@pytest.mark.parametrize("kind", ["strip", "linear", "line"])
def test_astra_keeps_the_contract(kind):
    for grid_name, grid in GRIDS.items():
        for name, geometry in beams(grid).items():
            A = AstraTransform(geometry, grid, kind=kind)
            assert_operator(A, f"{grid_name}, {name}")
            assert A.exact_adjoint


@pytest.mark.usefixtures("astra_installed")
def test_astra_strips_agree_with_ours():
    for grid_name, grid in GRIDS.items():
        for name, geometry in beams(grid).items():
            ours = projector(geometry, grid)
            theirs = projector(geometry, grid, backend="astra")
            x = torch.rand(ours.domain.shape, generator=torch.Generator().manual_seed(1))
            y = torch.rand(ours.range.shape, generator=torch.Generator().manual_seed(2))
            for a, b in ((ours @ x, theirs @ x), (ours.adjoint(y), theirs.adjoint(y))):
                error = torch.linalg.vector_norm(a - b) / torch.linalg.vector_norm(a)
                assert float(error) < 1e-5, (grid_name, name)
                assert a.stride() == b.stride(), (grid_name, name)


@pytest.mark.usefixtures("astra_installed")
def test_astra_s_fan_beams_keep_the_contract_and_agree_with_ours():
    grid = Grid((2, 61, 64), (1.3, 1.3, 2.0))
    geometry = FanBeam.covering(grid, IRREGULAR, sod_mm=150.0, sdd_mm=280.0)
    ours, theirs = projector(geometry, grid), projector(geometry, grid, backend="astra")
    assert_operator(theirs)
    axis = torch.linspace(-1, 1, 64)
    image = torch.exp(-8 * ((axis[1:-2, None] - 0.2) ** 2 + 2 * (axis[None, :] + 0.1) ** 2)).expand(grid.shape)
    y = ours @ image
    assert torch.linalg.vector_norm(theirs @ image - y) < 1e-3 * torch.linalg.vector_norm(y)
    back = ours.adjoint(y)
    assert torch.linalg.vector_norm(theirs.adjoint(y) - back) < 1e-3 * torch.linalg.vector_norm(back)
    lines = AstraFanTransform(geometry, grid, kind="line_fanflat")
    assert torch.linalg.vector_norm(lines @ image - y) < 2e-2 * torch.linalg.vector_norm(y)
    wrong = projector(FanBeam(tuple(-a for a in IRREGULAR), geometry.columns, geometry.pitch_mm, 150.0, 280.0), grid)
    assert torch.linalg.vector_norm(wrong @ image - y) > 0.1 * torch.linalg.vector_norm(y)


@pytest.mark.usefixtures("astra_installed")
@pytest.mark.parametrize(
    ("geometry", "grid", "message"),
    [
        (FanBeam((0.0,), 9, 1.0, 50.0, 80.0, arc=True), Grid((1, 8, 8)), "no fan beams on curved detectors"),
        (FanBeam((0.0,), 9, 1.0, 50.0, 80.0, offset_mm=1.0), Grid((1, 8, 8)), "with geometry.offset_mm"),
        (FanBeam((0.0,), 9, 1.0, 50.0, 80.0), Grid((1, 8, 8), isocentre_mm=(0.0, 0.0, 0.0)), "off the isocentre"),
    ],
)
def test_astra_refuses_fan_beams_that_it_cannot_do(geometry, grid, message):
    with pytest.raises(InputError, match=f"'astra' does .*{message}.*; use projector own"):
        projector(geometry, grid, backend="astra")


@pytest.mark.usefixtures("astra_installed")
def test_astra_has_what_the_engine_uses():
    grid = GRIDS["odd, not square"]
    geometry = ParallelBeam.covering(grid, view_angles(12))
    ours, theirs = projector(geometry, grid), projector(geometry, grid, backend="astra")
    assert theirs.norm() == pytest.approx(ours.norm(), rel=1e-4)
    assert theirs.scaled(0.5).norm() == pytest.approx(0.5 * ours.norm(), rel=1e-4)
    y = ours @ torch.rand(ours.domain.shape)
    assert torch.allclose(fbp(theirs, y, geometry, grid), fbp(ours, y, geometry, grid), atol=1e-5)
    one = theirs.with_slices(1)
    del theirs  # the projector lives on in the operator that shares it
    gc.collect()
    assert torch.allclose((one.H @ y[:1]), ours.adjoint(y)[:1], atol=1e-4)


@pytest.mark.usefixtures("astra_installed")
def test_astra_refuses_what_it_cannot_do():
    grid = Grid((2, 8, 8))
    geometry = ParallelBeam.covering(grid, (0.0,))
    with pytest.raises(InputError, match=r"'astra' computes in float32 only.*own"):
        projector(geometry, grid, backend="astra", dtype=torch.float64)
    with pytest.raises(InputError, match=r"'astra' needs square pixels, not 1 x 2 mm.*own"):
        projector(geometry, Grid((2, 8, 8), (1.0, 2.0, 1.0)), backend="astra")
    with pytest.raises(InputError, match="'cuboid' is not known.*strip"):
        AstraTransform(geometry, grid, kind="cuboid")


# --- torch-radon: it needs CUDA, so a stand-in that follows its conventions checks our side of the call anywhere


class StandIn:
    """Radon(resolution, angles, det_count, det_spacing) in pixels, whose angles turn the other way than ours."""

    def __init__(self, resolution, angles, det_count, det_spacing):
        turned = tuple(-math.degrees(float(angle)) for angle in angles)
        self.beam, self.size = ParallelBeam(turned, det_count, det_spacing), resolution

    def _operator(self, stack: torch.Tensor) -> SliceProjector:
        assert stack.is_contiguous()
        return projector(self.beam, Grid((len(stack), self.size, self.size)))

    def forward(self, x):
        return self._operator(x).forward(x).contiguous()

    def backprojection(self, sinogram):
        return self._operator(sinogram).adjoint(sinogram).contiguous()


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_radon", SimpleNamespace(Radon=StandIn))
    monkeypatch.setitem(sys.modules, "torch_radon_cuda", SimpleNamespace())


@pytest.mark.usefixtures("stand_in")
def test_torch_radon_is_called_in_its_own_units(monkeypatch):
    monkeypatch.setattr("DiffusionMBIRLib.operators.backends.torch_radon._require_cuda", lambda device: None)
    grid = Grid((3, 16, 16), (1.7, 1.7, 3.0))
    geometry = ParallelBeam.covering(grid, IRREGULAR, pitch_mm=1.1)
    ours, theirs = projector(geometry, grid), TorchRadonTransform(geometry, grid, device="cpu")
    x, y = torch.rand(ours.domain.shape), torch.rand(ours.range.shape)
    assert torch.allclose(theirs @ x, ours @ x, atol=1e-4)
    assert torch.allclose(theirs.adjoint(y), ours.adjoint(y), atol=1e-4)
    assert theirs.norm() == pytest.approx(ours.norm(), rel=1e-4)
    assert_operator(theirs)  # of the stand-in, whose back-projection is exact
    assert not theirs.exact_adjoint
    assert not theirs.scaled(2.0).H.exact_adjoint


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"device": "cpu"}, "CUDA devices only, not on cpu"),
        ({"dtype": torch.float64}, "float32 only"),
        ({"grid": Grid((1, 8, 9))}, "square slices, not 8 x 9"),
        ({"grid": Grid((1, 8, 8), (1.0, 2.0, 1.0))}, "square pixels"),
        ({"geometry": ParallelBeam((0.0,), 9, 1.0, offset_mm=0.5)}, "no detector shift.*0.5"),
        ({"geometry": ParallelBeam(view_angles(4097), 9, 1.0)}, "at most 4096 views, not 4097"),
    ],
)
def test_torch_radon_refuses_what_it_cannot_do(change, message, monkeypatch):
    if "device" not in change:
        monkeypatch.setattr("DiffusionMBIRLib.operators.backends.torch_radon._require_cuda", lambda device: None)
    usual = {"geometry": ParallelBeam((0.0,), 9, 1.0), "grid": Grid((1, 8, 8)), "device": "cpu", "dtype": torch.float32}
    options = {**usual, **change}
    with pytest.raises(InputError, match=f"'torch-radon'.*{message}"):
        TorchRadonTransform(options["geometry"], options["grid"], device=options["device"], dtype=options["dtype"])


@pytest.mark.gpu
def test_torch_radon_agrees_with_ours_on_a_smooth_image():
    pytest.importorskip("torch_radon_cuda", reason="torch-radon is not installed")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    grid = Grid((2, 64, 64), (0.8, 0.8, 1.0))
    geometry = ParallelBeam.covering(grid, IRREGULAR)
    ours = projector(geometry, grid, device="cuda")
    theirs = projector(geometry, grid, device="cuda", backend="torch-radon")
    axis = torch.linspace(-1, 1, 64, device="cuda")
    image = torch.exp(-8 * ((axis[:, None] - 0.2) ** 2 + 2 * (axis[None, :] + 0.1) ** 2)).expand(2, 64, 64)
    y = ours @ image
    assert float(torch.linalg.vector_norm(theirs @ image - y) / torch.linalg.vector_norm(y)) < 0.02
    back = ours.adjoint(y)
    assert float(torch.linalg.vector_norm(theirs.adjoint(y) - back) / torch.linalg.vector_norm(back)) < 0.05
