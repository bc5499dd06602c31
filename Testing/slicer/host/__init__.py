"""A small stand-in for Slicer's desktop, so that the panel can be seen and pressed without it.

Its folder goes on the module path for ``import qt``; MRML is the real one, of the package slicer-core.
"""

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
for folder in (str(HERE), str(ROOT / "DiffusionMBIR")):
    if folder not in sys.path:
        sys.path.insert(0, folder)
