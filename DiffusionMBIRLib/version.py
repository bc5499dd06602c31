"""The version of the engine, the package and the extension: the one place where it is written."""

__version__ = "0.1.0"
