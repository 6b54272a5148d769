"""Open napari with a sample image, ready-made strokes and the dock; press Train.

python examples/open_plugin.py
"""

import napari

viewer = napari.Viewer()
viewer.open_sample("napari-msseg", "tissue")
viewer.window.add_plugin_dock_widget("napari-msseg", "Scribble segmentation")

if __name__ == "__main__":
    napari.run()
