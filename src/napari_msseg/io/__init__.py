"""Images, labels, masks and probabilities in and out of files, geometry included."""

from napari_msseg.io.atomic import atomic_path
from napari_msseg.io.read import read_image, read_label_image, read_labels
from napari_msseg.io.write import check_output, write_image, write_mask, write_probabilities

__all__ = [
    "atomic_path",
    "check_output",
    "read_image",
    "read_label_image",
    "read_labels",
    "write_image",
    "write_mask",
    "write_probabilities",
]
