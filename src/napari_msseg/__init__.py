"""napari-msseg."""
