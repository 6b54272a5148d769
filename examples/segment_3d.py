"""Segment an MR volume from strokes on three slices; the NIfTI mask lies over its image.

python examples/segment_3d.py [SECONDS]
"""

import sys

from napari_msseg import segment, write_mask
from napari_msseg.samples import brain

seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 20.0
sample = brain()
print(f"axes {sample.image.axes}, spacing {sample.image.spacing} {sample.image.unit}")
result = segment(sample.image, sample.scribbles, seconds=seconds)
write_mask("brain_mask.nii.gz", result.mask, sample.image)

z, y, x = sample.image.spacing
millilitres = (result.mask == 1).sum() * z * y * x / 1000
print(f"{result.steps} steps, brain volume {millilitres:.0f} ml")
