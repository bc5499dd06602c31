"""``python -m DiffusionMBIRLib`` is the command ``diffusionmbir``."""

import sys

from .cli import main

sys.exit(main())
