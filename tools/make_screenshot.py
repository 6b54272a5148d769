"""Make `docs/screenshot.png`: the dock, the tissue sample, and the live prediction.

Run under a screen or ``xvfb-run -a -s "-screen 0 1400x900x24" python tools/make_screenshot.py``.
Nothing is staged: the viewer opens, Train is pressed, and after some seconds the window is taken.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import napari
from qtpy.QtWidgets import QApplication

TARGET = Path(__file__).resolve().parents[1] / "docs" / "screenshot.png"


def spin(seconds: float) -> None:
    """Let the event loop run."""
    app = QApplication.instance()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        app.processEvents()
        time.sleep(0.005)


def main(sample: str = "tissue", seconds: float = 30.0, target: Path = TARGET) -> None:
    """Open, train, take the picture, close."""
    viewer = napari.Viewer()
    viewer.window.resize(1280, 820)
    viewer.open_sample("napari-msseg", sample)
    _, widget = viewer.window.add_plugin_dock_widget("napari-msseg", "Scribble segmentation")
    spin(1.0)
    widget.train_panel.train_button.click()
    spin(seconds)
    viewer.reset_view()
    spin(0.5)
    target.parent.mkdir(exist_ok=True)
    viewer.window.screenshot(str(target), flash=False, canvas_only=False)
    print(f"{target}: {widget.progress_panel.status.text()!r}")
    viewer.close()


if __name__ == "__main__":
    given = sys.argv[1:]
    sample, seconds, target = given + ["tissue", "30", str(TARGET)][len(given) :]
    main(sample, float(seconds), Path(target))
