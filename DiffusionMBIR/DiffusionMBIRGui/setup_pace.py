"""Runs in the engine's Python, by its path: measures how fast it is, on a slice or two, and remembers it.

    python setup_pace.py SETTINGS TASK DEVICE

SETTINGS: a JSON object of settings of a reconstruction.  What is known already is not measured again.
"""

import json
import sys


def main(arguments):
    from DiffusionMBIRLib.config import ReconSettings
    from DiffusionMBIRLib.devices import choose_device
    from DiffusionMBIRLib.errors import EngineError, InputError
    from DiffusionMBIRLib.pace import pace_of

    settings, task, device = arguments
    try:
        pace_of(ReconSettings(**json.loads(settings)), task, choose_device(device))
    except (EngineError, InputError) as error:  # the run itself will say so
        print(error, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
