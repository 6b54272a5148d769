"""Add a loss of one's own: short boundaries, by the total variation of the probabilities.

python examples/custom_loss.py [SECONDS]
"""

import sys

from torch import Tensor

from napari_msseg import segment
from napari_msseg.samples import tissue


def total_variation(logits: Tensor, image: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring probabilities; the image is not needed."""
    p = logits.softmax(dim=1)
    return 0.1 * (p.diff(dim=-1).abs().mean() + p.diff(dim=-2).abs().mean())


seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 20.0
sample = tissue()
plain = segment(sample.image, sample.scribbles, seconds=seconds)
smooth = segment(sample.image, sample.scribbles, seconds=seconds, extra_loss=total_variation)
for name, result in (("plain", plain), ("with total variation", smooth)):
    boundary = (result.mask[1:] != result.mask[:-1]).sum()
    print(f"{name}: {result.steps} steps, {boundary} boundary pixels")
