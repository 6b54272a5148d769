"""Start napari in a child, so that the command line itself never imports it."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

from napari_msseg.cli.exits import DEFECT
from napari_msseg.errors import InputError

BINDINGS = ("PyQt6", "PySide6", "PyQt5", "PySide2")
LAUNCHER = "napari_msseg._napari.launch"


def open_gui(sample: str) -> int:
    """Open a viewer with a sample and the widget; return the exit code when it is closed.

    Raises
    ------
    InputError
        If napari, a Qt binding or a display is missing.
    """
    require_gui()
    code = subprocess.run([sys.executable, "-m", LAUNCHER, sample], check=False).returncode
    return DEFECT if code else 0


def require_gui() -> None:
    """Raise `InputError` with the remedy unless a viewer can be opened here."""
    installed = find_spec("napari") and any(find_spec(binding) for binding in BINDINGS)
    if not installed:
        raise InputError(
            "--gui needs napari and a Qt binding: run  pip install 'napari-msseg[pyqt6]'"
        )
    named = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if sys.platform.startswith("linux") and not named:
        raise InputError(
            "--gui needs a display and none is set (DISPLAY, WAYLAND_DISPLAY): "
            "log in with a desktop, or leave --gui out"
        )
