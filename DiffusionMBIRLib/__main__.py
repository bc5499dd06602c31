"""``python -m DiffusionMBIRLib`` is the command ``diffusionmbir``."""

import os
import sys
from contextlib import suppress


def main() -> int:
    """The command line; Ctrl-C while it is still being imported is one line as well."""
    try:
        from .cli import main as run

        return run()
    except KeyboardInterrupt:
        with suppress(OSError):
            os.write(2, b"diffusionmbir: cancelled\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
