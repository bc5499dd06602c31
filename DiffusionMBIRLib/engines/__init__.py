"""Where jobs are computed: on this computer, on another one through ssh, on a cluster with SLURM; one file each.

An engine serves the folder of a job and says what it does in the lines of ``jobs.messages``; whoever started the job
sees no difference.  Remote ones run this very software on the other side (``agent``), started through the user's own
``ssh``, and bring what it writes into the folder here (``relay``).
"""

from .base import LOCAL, Engine, engine_of, kinds_of_engines

__all__ = ["LOCAL", "Engine", "engine_of", "kinds_of_engines"]
