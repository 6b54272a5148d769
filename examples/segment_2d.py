"""Segment a stained tissue image from ten strokes, without a window.

python examples/segment_2d.py [SECONDS]
"""

import sys

from napari_msseg import segment, write_mask
from napari_msseg.metrics import iou
from napari_msseg.samples import tissue

seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 20.0
sample = tissue()
result = segment(sample.image, sample.scribbles, seconds=seconds)
write_mask("tissue_mask.tif", result.mask, sample.image)

score = iou(result.mask, sample.reference, ignore=sample.scribbles > 0)
print(f"{result.steps} steps, IoU {score:.3f}, first answer {result.seconds_to_first_answer:.1f} s")
