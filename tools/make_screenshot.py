"""Make the pictures of the README and of `docs/tour.md`: the dock in each of its states.

Run under a screen or ``xvfb-run -a -s "-screen 0 1400x1000x24" python tools/make_screenshot.py``.
Nothing is staged: viewers open, strokes are there or painted, Train is pressed, and the window is
taken. Choices and kept strokes are in a temporary folder, so that the user's own stay as they are.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import napari
import numpy as np
from PIL import Image
from qtpy.QtWidgets import QApplication, QScrollArea

from napari_msseg.events import MapKind

FOLDER = Path(__file__).resolve().parents[1] / "docs"
COLOURS = 256


def spin(seconds: float) -> None:
    """Let the event loop run."""
    app = QApplication.instance()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        app.processEvents()
        time.sleep(0.02)


def open_dock(sample: str, size: tuple[int, int] = (1280, 940)) -> tuple[Any, Any]:
    """Return a viewer with a sample, and the dock."""
    viewer = napari.Viewer()
    viewer.window.resize(*size)
    viewer.open_sample("napari-msseg", sample)
    _, widget = viewer.window.add_plugin_dock_widget("napari-msseg", "Scribble segmentation")
    spin(1.0)
    return viewer, widget


def take(viewer: Any, name: str) -> None:
    """Save the window as a picture of few colours."""
    path = FOLDER / f"{name}.png"
    spin(0.5)
    viewer.window.screenshot(str(path), flash=False, canvas_only=False)
    with Image.open(path) as picture:
        few = picture.convert("RGB").quantize(COLOURS, Image.Quantize.FASTOCTREE)  # keeps rare hues
        few.save(path, optimize=True)
    print(f"{path} ({path.stat().st_size // 1024} kB)")


def tissue() -> None:
    """Show the first answer, the tour of unsure places, and the list of classes."""
    viewer, widget = open_dock("tissue")
    widget.train_panel.train_button.click()
    spin(20.0)
    viewer.reset_view()
    take(viewer, "screenshot")
    widget.look_panel.choose((MapKind.UNCERTAINTY, 0))
    spin(3.0)
    widget.navigator.next()
    spin(3.0)
    take(viewer, "tour_next_spot")
    widget.look_panel.choose(None)
    widget.classes.add()
    widget.classes.rename(2, "Lumen")
    widget.classes.move(2, 1)
    viewer.reset_view()
    take(viewer, "tour_classes")
    viewer.close()
    spin(0.5)


def objects() -> None:
    """Count the nuclei of a tissue, and open their table."""
    viewer, widget = open_dock("tissue", (1280, 1000))
    widget.train_panel.train_button.click()
    spin(15.0)
    widget.object_panel.objects.setChecked(True)
    widget.object_panel.smoothing.setValue(1)
    widget.object_panel.min_size.setValue(30)
    widget.object_panel.split.setChecked(True)
    spin(5.0)
    widget.object_panel.table_button.click()
    bar = widget.findChild(QScrollArea).verticalScrollBar()
    bar.setValue(bar.maximum())
    viewer.reset_view()
    spin(1.0)
    take(viewer, "tour_objects")
    widget.objects.table._choose(widget.objects.table.model.index(0, 0))
    widget.locks.lock_object()
    spin(1.0)
    take(viewer, "tour_locks")
    viewer.close()
    spin(0.5)


def kept() -> None:
    """Open the same image again: what was painted is offered."""
    viewer = napari.Viewer()
    viewer.window.resize(1280, 940)
    image = _tissue_image()
    viewer.add_image(image, name="tissue again", rgb=True)
    _, _ = viewer.window.add_plugin_dock_widget("napari-msseg", "Scribble segmentation")
    spin(1.5)
    take(viewer, "tour_kept")
    viewer.close()
    spin(0.5)


def brain() -> None:
    """Show a volume, in slices and from outside, in a small window."""
    viewer, widget = open_dock("brain", (1024, 720))
    widget.train_panel.train_button.click()
    spin(25.0)
    take(viewer, "tour_volume")
    viewer.dims.ndisplay = 3
    spin(4.0)
    take(viewer, "tour_volume_3d")
    viewer.close()
    spin(0.5)


def _tissue_image() -> np.ndarray[Any, Any]:
    from napari_msseg import samples

    return np.asarray(samples.tissue().image.data)


SCENES = {"tissue": tissue, "objects": objects, "kept": kept, "brain": brain}


def main(*names: str) -> None:
    """Make all pictures, or those of some scenes."""
    os.environ["NAPARI_MSSEG_DATA"] = tempfile.mkdtemp()
    for name in names or SCENES:
        SCENES[name]()


if __name__ == "__main__":
    main(*sys.argv[1:])
