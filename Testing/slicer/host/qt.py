"""Slicer's module ``qt`` outside of Slicer: PySide6's classes under one roof."""

from PySide6.QtCore import *  # noqa: F403
from PySide6.QtGui import *  # noqa: F403
from PySide6.QtUiTools import QUiLoader  # noqa: F401
from PySide6.QtWidgets import *  # noqa: F403
