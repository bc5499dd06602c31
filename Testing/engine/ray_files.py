"""Scans of balls by X-rays in the formats of scanners, each written by its own description, not by our geometry."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import tifffile

from DiffusionMBIRLib.geometry import PosedBeam

BALLS = np.array([(1.0, -2.0, 0.5, 4.0, 0.06), (-4.0, 3.0, -1.5, 2.0, 0.08), (3.0, 4.0, 2.0, 1.5, -0.02)])  # x y z r mu
BEAM = 40000.0
SOD, SDD, PITCH, ROWS, COLUMNS = 60.0, 90.0, 0.9, 22, 32


def chords(start: np.ndarray, through: np.ndarray, balls: np.ndarray = BALLS) -> np.ndarray:
    """Exact line integrals along the lines from one point through others (..., 3)."""
    along = through - start
    along = along / np.linalg.norm(along, axis=-1, keepdims=True)
    total = np.zeros(np.broadcast_shapes(start.shape, through.shape)[:-1])
    for x, y, z, radius, mu in balls:
        to = np.array([x, y, z]) - start
        foot = (to * along).sum(-1)
        away = (to**2).sum(-1) - foot**2
        total += mu * 2 * np.sqrt(np.maximum(radius**2 - away, 0))
    return total


def expected(geometry, balls: np.ndarray = BALLS) -> np.ndarray:
    """What a scan of one of our geometries must hold, (rows, views, columns); of a stack of slices that of z = 0."""
    poses = geometry.poses()
    rows, columns = geometry.detector
    u = (np.arange(columns) - (columns - 1) / 2)[None, None, :, None]
    v = (np.arange(rows) - (rows - 1) / 2)[:, None, None, None]
    centre, along, up = (a[None, :, None] for a in (poses.centre, poses.u, poses.v))
    if poses.source is None:
        start = centre + u * along + v * up
        return chords(start, start + poses.direction[None, :, None], balls)
    source = poses.source[None, :, None]
    if not poses.arc:
        return chords(source, centre + u * along + v * up, balls)
    out = centre - source
    radius = np.linalg.norm(out, axis=-1, keepdims=True)
    step = np.linalg.norm(along, axis=-1, keepdims=True)
    turn = u * step / radius
    return chords(source, source + np.cos(turn) * out + np.sin(turn) * radius * along / step + v * up, balls)


def counts_of(lines: np.ndarray) -> np.ndarray:
    return np.rint(BEAM * np.exp(-lines)).astype(np.uint16)


def about_z(angle_deg: float) -> np.ndarray:
    c, s = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])


def turned_object(angles_deg, source, centre, u, v, on_axis, rows=ROWS, columns=COLUMNS, balls=BALLS) -> np.ndarray:
    """Images (views, rows, columns) of a scanner at rest whose object turns right-handed about z through a point.

    u, v: steps from column to column and from row to row of the stored image; the object's own frame is that of view 0.
    """
    grid = (
        centre + (np.arange(columns) - (columns - 1) / 2)[None, :, None] * u
        + (np.arange(rows) - (rows - 1) / 2)[:, None, None] * v
    )  # fmt: skip
    images = []
    for angle in angles_deg:
        back = about_z(-angle)
        images.append(chords((source - on_axis) @ back.T, (grid - on_axis) @ back.T, balls))
    return np.array(images)


# --- writers; each gives the path to read, and the balls as our world has them


def write_tiffs(folder: Path, prefix: str, images: np.ndarray, digits: int = 4, first: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for k, image in enumerate(images):
        tifffile.imwrite(folder / f"{prefix}{k + first:0{digits}}.tif", image)


def write_toml(folder: Path, lines: np.ndarray, geometry: str, extra: str = "") -> Path:
    """Counts as TIFF with flat and dark; lines: (views, rows, columns)."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tiffs(folder / "views", "v", counts_of(lines) + 100)
    tifffile.imwrite(folder / "flat.tif", np.full(lines.shape[1:], BEAM + 100, np.float32))
    tifffile.imwrite(folder / "dark.tif", np.full(lines.shape[1:], 100, np.uint16))
    text = f'images = "views"\nflat = "flat.tif"\ndark = "dark.tif"\n{extra}\n[geometry]\n{geometry}\n'
    (folder / "scan.toml").write_text(text)
    return folder / "scan.toml"


def write_xtekct(folder: Path, views: int = 40, offset: float = 0.05, sense: float = 1.0) -> Path:
    """Object offset by x on a table that turns; images from the detector's side, rows from the top."""
    angles = sense * np.arange(views) * 360 / views
    # x to the right as seen from the source; the detector's first column is at its right, its first row at the top.
    lines = turned_object(
        angles, np.array([0.0, -SOD, 0]), np.array([0.0, SDD - SOD, 0]), np.array([-PITCH, 0, 0]),
        np.array([0, 0, -PITCH]), np.array([-offset, 0.0, 0]),
    )  # fmt: skip
    write_tiffs(folder, "a_", counts_of(lines), first=1)
    (folder / "a.xtekct").write_text(
        f"[XTekCT]\nName=a\nProjections={views}\nWhiteLevel={BEAM:g}\nDetectorPixelsX={COLUMNS}\n"
        f"DetectorPixelsY={ROWS}\nDetectorPixelSizeX={PITCH}\nDetectorPixelSizeY={PITCH}\nSrcToObject={SOD}\n"
        f"SrcToDetector={SDD}\nInitialAngle=0\nAngularStep={360 / views}\nObjectOffsetX={offset}\nObjectRoll=0\n"
    )
    return folder / "a.xtekct"


def write_bruker(folder: Path, views: int = 40) -> Path:
    angles = np.arange(views) * 360 / views
    lines = turned_object(
        angles, np.array([0.0, -SOD, 0]), np.array([0.0, SDD - SOD, 0]), np.array([PITCH, 0, 0]),
        np.array([0, 0, -PITCH]), np.zeros(3),
    )  # fmt: skip
    write_tiffs(folder, "im_", counts_of(lines))
    (folder / "im_.log").write_text(
        f"[System]\nScanner=SkyScan1275\nCamera Pixel Size (um)={PITCH * 1000:g}\n[Acquisition]\nFilename Prefix=im_\n"
        f"Number Of Files= {views}\nNumber Of Rows= {ROWS}\nNumber Of Columns= {COLUMNS}\nCamera binning=1x1\n"
        f"Optical Axis (line)= {ROWS / 2}\nObject to Source (mm)={SOD}\nCamera to Source (mm)={SDD}\n"
        f"Image Pixel Size (um)={PITCH * 1000 * SOD / SDD:.6g}\nDepth (bits)=16\n"
        f"Reference Intensity={BEAM:g}\nRotation Step (deg)={360 / views}\n"
        "[Reconstruction]\nReconstruction Program=NRecon\n"
    )
    return folder / "im_.log"


def write_leap(folder: Path, views: int = 24) -> Path:
    """LEAP's source stands on x at angle 0, at (sod cos, sod sin); columns along (-sin, cos), rows along z."""
    folder.mkdir(parents=True, exist_ok=True)
    angles, images = np.arange(views) * 360 / views, []
    column, row = 16.25, 6.0  # those of the central ray
    for phi in np.radians(angles):
        ahead, along = -np.array([np.cos(phi), np.sin(phi), 0]), np.array([-np.sin(phi), np.cos(phi), 0])
        source = -SOD * ahead
        u, v = (np.arange(COLUMNS) - column) * PITCH, (np.arange(ROWS) - row) * PITCH
        points = source + SDD * ahead + u[None, :, None] * along + v[:, None, None] * np.array([0, 0, 1.0])
        images.append(chords(source, points))
    np.asarray(images, "<f4").tofile(folder / "g.raw")
    (folder / "geometry.txt").write_text(
        f"geometry = cone\nnumAngles = {views}\nnumRows = {ROWS}\nnumCols = {COLUMNS}\npixelHeight = {PITCH}\n"
        f"pixelWidth = {PITCH}\ncenterRow = {row}\ncenterCol = {column}\nangularRange = 360\nsod = {SOD}\nsdd = {SDD}\n"
    )
    return folder / "geometry.txt"


def write_rtk(folder: Path, views: int = 20, *, tilted: bool = False) -> Path:
    """By RTK's description: gantry's frame, IEC world with the axis y."""
    import SimpleITK as sitk

    folder.mkdir(parents=True, exist_ok=True)
    to_rtk = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # their (x, y, z) of ours
    balls = np.concatenate([BALLS[:, :3] @ to_rtk.T, BALLS[:, 3:]], axis=1)
    origin = (-(COLUMNS - 1) / 2 * PITCH + 0.7, -(ROWS - 1) / 2 * PITCH)
    images, text = [], ""
    for k in range(views):
        gantry, out, inside = 360 * k / views, (3.0 if tilted else 0.0), (-2.0 if tilted else 0.0)
        source_x, offset_y = (1.5 if tilted else 0.0), (0.8 if tilted else 0.0)
        g, o, i = np.radians([-gantry, -out, -inside])
        about_y = np.array([[np.cos(g), 0, np.sin(g)], [0, 1, 0], [-np.sin(g), 0, np.cos(g)]])
        about_x = np.array([[1, 0, 0], [0, np.cos(o), -np.sin(o)], [0, np.sin(o), np.cos(o)]])
        turn = about_z(np.degrees(i)) @ about_x @ about_y  # world to gantry
        u = origin[0] + np.arange(COLUMNS) * PITCH
        v = origin[1] + np.arange(ROWS) * PITCH + offset_y
        points = np.stack(np.broadcast_arrays(u[None, :], v[:, None], np.full((1, 1), SOD - SDD)), axis=-1)
        images.append(chords(np.array([source_x, 0, SOD]) @ turn, points @ turn, balls))
        more = f"<OutOfPlaneAngle>{out}</OutOfPlaneAngle><InPlaneAngle>{inside}</InPlaneAngle>" if tilted else ""
        more += f"<SourceOffsetX>{source_x}</SourceOffsetX><ProjectionOffsetY>{offset_y}</ProjectionOffsetY>"
        text += f"<Projection><GantryAngle>{gantry}</GantryAngle>{more if tilted else ''}</Projection>\n"
    image = sitk.GetImageFromArray(np.asarray(images, np.float32))
    image.SetSpacing((PITCH, PITCH, 1))
    image.SetOrigin((*origin, 0))
    sitk.WriteImage(image, str(folder / "projections.mha"))
    (folder / "geometry.xml").write_text(
        '<?xml version="1.0"?>\n<!DOCTYPE RTKGEOMETRY>\n<RTKThreeDCircularGeometry version="3">\n'
        f"<SourceToIsocenterDistance>{SOD}</SourceToIsocenterDistance>\n"
        f"<SourceToDetectorDistance>{SDD}</SourceToDetectorDistance>\n{text}</RTKThreeDCircularGeometry>\n"
    )
    return folder / "geometry.xml"


def write_matrices(path: Path, geometry: PosedBeam) -> None:
    """A table of projection matrices, each put together from what a camera is: turn, shift, then its inner matrix."""
    poses, blocks = geometry.poses(), []
    assert poses.source is not None
    for k in range(geometry.views):
        source, centre, u, v = (a[k] for a in (poses.source, poses.centre, poses.u, poses.v))
        x, y = u / np.linalg.norm(u), v / np.linalg.norm(v)
        turn = np.stack([x, y, np.cross(x, y)])
        middle = turn @ (centre - source)  # of the detector, seen from the source
        depth, pitch = middle[2], (np.linalg.norm(u), np.linalg.norm(v))
        inner = np.array(
            [[depth / pitch[0], 0, COLUMNS / 2 - middle[0] / pitch[0]],
             [0, depth / pitch[1], ROWS / 2 - middle[1] / pitch[1]], [0, 0, 1]]
        )  # fmt: skip
        matrix = inner @ np.concatenate([turn, -(turn @ source)[:, None]], axis=1)
        rows = "\n".join(" ".join(repr(float(c)) for c in row) for row in matrix / matrix[2, 3])
        blocks.append(f"@{k + 1}\n0.0 0.0\n{rows}\n\n")
    head = "projtable.txt version 3\nMon Jan  1 00:00:00 2024\n\n# format: angle / entries of projection matrices\n"
    path.write_text(f"{head}{geometry.views}\n" + "".join(blocks))


def write_cera(folder: Path, views: int = 40) -> Path:
    angles = np.arange(views) * 360 / views
    lines = turned_object(
        angles, np.array([0.0, -SOD, 0]), np.array([0.0, SDD - SOD, 0]), np.array([PITCH, 0, 0]),
        np.array([0, 0, -PITCH]), np.zeros(3),
    )  # fmt: skip
    write_tiffs(folder, "p_", counts_of(lines))
    (folder / "c.config").write_text(
        f"#CERACONFIG\n\n[Projections]\nNumChannelsPerRow = {COLUMNS}\nNumRows = {ROWS}\nPixelSizeU = {PITCH}\n"
        f"PixelSizeV = {PITCH}\nFlipU = false\nFlipV = false\nProjectionDataDomain = Intensity\n[CustomKeys]\n"
        f"NumProjections = {views}\nProjectionFileType = tiff\nProjectionFilenameMask = p_%04d.tif\n"
        f"[CustomKeys.ProjectionMatrices]\nSourceObjectDistance = {SOD}\nSourceImageDistance = {SDD}\n"
        f"DetectorOffsetU = 0\nDetectorOffsetV = 0\nStartAngle = 0\nScanAngle = 360\nAquisitionDirection = CW\n"
        f"[I0Log]\nGlobalI0Value = {BEAM:g}\n"
    )
    return folder / "c.config"


def write_ctsimu(folder: Path, views: int = 20) -> Path:
    """Source at the origin, beam along x, rows downwards, the object turning counter-clockwise about z."""
    folder.mkdir(parents=True, exist_ok=True)
    angles = np.arange(views) * 360 / views
    lines = turned_object(
        angles, np.zeros(3), np.array([SDD, 0.3, 0]), np.array([0, -PITCH, 0]), np.array([0, 0, -PITCH]),
        np.array([SOD, 0.0, 0]),
    )  # fmt: skip
    counts_of(lines).astype("<u2").tofile(folder / "p.raw")
    np.full((ROWS, COLUMNS), BEAM, "<u2").tofile(folder / "flat_0000.raw")

    def at(place, unit: str = "mm") -> dict:
        return {axis: {"value": v, "unit": unit} for axis, v in zip("xyz", place, strict=True)}

    def part(centre, u, w):
        return {"center": centre, "vector_u": at(u, ""), "vector_w": at(w, ""), "deviations": []}

    scenario = {
        "geometry": {
            "source": part(at((0, 0, 0)), (0, -1, 0), (1, 0, 0)),
            "stage": part(at((SOD * 1000, 0, 0), "um"), (1, 0, 0), (0, 0, 1)),
            "detector": part(at((SDD, 0.3, 0)), (0, -1, 0), (1, 0, 0)),
        },
        "acquisition": {
            "start_angle": {"value": 0}, "stop_angle": {"value": 360}, "direction": "CCW",
            "include_final_angle": False,
        },
    }  # fmt: skip
    side = {"value": PITCH, "unit": "mm"}
    images = {
        "filename": "p.raw", "number": views, "max_intensity": BEAM, "datatype": "uint16", "byteorder": "little",
        "headersize": {"file": 0, "image": 0}, "dimensions": {"x": {"value": COLUMNS}, "y": {"value": ROWS}},
        "pixelsize": {"x": side, "y": side}, "dark_field": {"number": 0, "filename": None},
        "flat_field": {"number": 1, "filename": "flat_%04d.raw", "projections_corrected": False},
    }  # fmt: skip
    metadata = {
        "file": {"file_type": "CTSimU Metadata"}, "output": {"projections": images},
        "acquisition_geometry": {"path_to_CTSimU_JSON": "../s.json"},
    }  # fmt: skip
    (folder / "s.json").write_text(json.dumps(scenario))
    (folder / "s_metadata.json").write_text(json.dumps(metadata))
    return folder / "s_metadata.json"
