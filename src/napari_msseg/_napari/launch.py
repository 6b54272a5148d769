"""``python -m napari_msseg._napari.launch tissue|brain``: a viewer, a sample, and the dock."""

from __future__ import annotations

import sys

import napari

PLUGIN = "napari-msseg"
WIDGET = "Scribble segmentation"
SAMPLES = ("tissue", "brain")


def open_sample(name: str) -> napari.Viewer:
    """Open a viewer with a sample loaded and the dock open."""
    viewer = napari.Viewer(title="napari-msseg")
    viewer.open_sample(PLUGIN, name)
    viewer.window.add_plugin_dock_widget(PLUGIN, WIDGET)
    return viewer


if __name__ == "__main__":
    chosen = sys.argv[1] if len(sys.argv) > 1 else SAMPLES[0]
    if chosen not in SAMPLES:
        sys.exit(f"there is no sample {chosen!r}: use one of {', '.join(SAMPLES)}")
    open_sample(chosen)
    napari.run()
