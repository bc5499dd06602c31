"""Makes the calibration of a bundled prior from people that it was trained with and others, who weigh more.

    python Utilities/calibrate_bundled.py CT VOLUMES -o FOLDER --prior ct-compact-v1
    python Utilities/calibrate_bundled.py MR VOLUMES -o FOLDER --prior mr-compact-v1

VOLUMES: where the volumes of the training data lie (see Resources/Models/*.md).  Runs that FOLDER holds are not made
again, so that it goes on where it was broken off; a prior that is another file wants another FOLDER.  The file goes to
Resources/Calibrations.  Those that Testing/benchmarks/doubt.py judges by are in neither list.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from DiffusionMBIRLib.errors import one_line  # noqa: E402
from DiffusionMBIRLib.monitor import Console  # noqa: E402
from DiffusionMBIRLib.uncertainty.calibrate import calibrate, summary  # noqa: E402
from DiffusionMBIRLib.uncertainty.table import read_table  # noqa: E402

PEOPLE = {
    "CT": (
        "lung-pet-ct-dx-A0001_chest", "lung-pet-ct-dx-A0002_chest", "acrin-flt-breast-001_abdomen-pelvis",
        "acrin-flt-breast-013_chest", "cmb-crc-01068_chest", "crlm-1006_abdomen", "lidc-idri-0314_chest",
        "lungfcp-0001_upper-chest", "rider-pilot-0109_chest-abdomen", "tcga-lihc-A10X_abdomen",
        "visible-human-male_hip-thigh", "visible-human-female_pelvis", "sts-010_limb", "sts-014_limb", "sts-021_limb",
        "sts-033_limb", "sts-049_limb", "sts-001_limb", "sts-002_limb", "sts-013_limb", "sts-016_limb", "sts-024_limb",
    ),
    "MR": (
        "cstar-stroke_T1", "cstar-stroke_T2", "cstar-stroke_FLAIR", "seg3d-brain_T1", "uih-a_T1", "ucsf-br-06_T1",
        "ucsf-br-08_T1", "sts-001_T1", "sts-009_T1", "sts-010_T1", "sts-014_T1", "sts-021_T1", "sts-003_T1",
        "sts-013_T1", "sts-016_T1", "sts-029_T1", "sts-017_T1", "sts-018_T1", "sts-019_T1", "sts-020_T1", "sts-022_T1",
        "sts-023_T1", "sts-026_T1", "sts-027_T1", "sts-028_T1",
    ),
}  # fmt: skip
SEEN = {  # by the priors when they were trained: Resources/Models/*.md
    "CT": (
        "lung-pet-ct-dx-A0001", "acrin-flt-breast-001", "acrin-flt-breast-013", "cmb-crc-01068", "crlm-1006",
        "lidc-idri-0314", "lungfcp-0001", "rider-pilot-0109", "tcga-lihc-A10X", "visible-human-male",
        "visible-human-female",
    ),
    "MR": ("cstar-stroke", "seg3d-brain", "uih-a", "ucsf-br-06"),
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Make the calibration of a bundled prior.")
    parser.add_argument("modality", choices=tuple(PEOPLE))
    parser.add_argument("volumes", type=Path, help="folder of the training volumes")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for runs, gone on with")
    parser.add_argument("--prior", required=True)
    parser.add_argument("--scans", nargs="*", default=(), help="labels (default: all that are usual)")
    options = parser.parse_args(arguments)
    kind = options.modality.lower()
    volumes = [options.volumes / f"{kind}_{name}.nrrd" for name in PEOPLE[options.modality]]
    missing = [path.name for path in volumes if not path.is_file()]
    if missing:
        parser.error(one_line(f"{options.volumes}: lacks {', '.join(missing)}"))
    made = calibrate(
        volumes,
        options.output,
        prior=options.prior,
        modality=options.modality,
        scans=options.scans,
        patient=rf"{kind}_([^_]+)_",
        seen=SEEN[options.modality],
        monitor=Console(),
    )
    for row in summary(read_table(made)[0]):
        print(row)
    target = ROOT / "Resources" / "Calibrations" / made.name
    shutil.copyfile(made, target)
    print(target)


if __name__ == "__main__":
    main()
