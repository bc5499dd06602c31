"""The name that ``describe`` had in the first version, which people's scripts import."""

from __future__ import annotations

from .describe import describe_file, describe_machine, describe_volume

__all__ = ["describe_file", "describe_machine", "describe_volume"]
