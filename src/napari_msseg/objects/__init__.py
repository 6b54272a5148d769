"""From a mask to its objects: one number each, their sizes and intensities."""

from napari_msseg.objects.finding import ObjectConfig, find_objects, keep_numbers
from napari_msseg.objects.measuring import Measurements, measure, write_csv
from napari_msseg.objects.smoothing import smooth

__all__ = [
    "Measurements",
    "ObjectConfig",
    "find_objects",
    "keep_numbers",
    "measure",
    "smooth",
    "write_csv",
]
