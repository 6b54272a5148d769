"""A picture of a result: the image, the strokes, and the outlines of mask and reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from skimage.measure import find_contours

from napari_msseg.samples import Sample
from napari_msseg.volume import Volume

PREDICTION, REFERENCE, CASING = "#FF1FB4", "#00E5FF", "#101418"
STROKES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7")
"""Okabe and Ito's colours, background first, as in the widget."""
PAGE, INK = "#14181D", "#F2F4F6"
PANEL_WIDTH = {1: 1024, 3: 640}
"""Pixels that one panel is wide, by the number of panels."""
SUPERSAMPLING = 2
"""Everything is drawn this much larger and shrunk at the end: smooth lines."""
LINE, MARGIN, FONT_SIZE = 3, 20, 20
PERCENTILES = (1.0, 99.5)


@dataclass(frozen=True)
class Entry:
    """A line of the legend: a swatch and what it stands for."""

    colour: str
    text: str
    filled: bool


def draw_overlay(
    sample: Sample, mask: npt.NDArray[np.integer], title: str, prediction: str
) -> Image.Image:
    """Draw the stroked slices of a sample side by side, with a title and a legend.

    Parameters
    ----------
    sample : Sample
    mask : ndarray of int, shape ``sample.image.spatial_shape``
        Classes; all but the background are outlined as one.
    title, prediction : str
        The heading, and what the legend says about the outline of `mask`.

    Returns
    -------
    Image
        RGB.
    """
    slices = sample.stroked_slices
    panels = [_panel(sample, mask, z, PANEL_WIDTH.get(len(slices), 480)) for z in slices]
    width = sum(p.width for p in panels) + MARGIN * (len(panels) + 1)
    head, foot = 2 * MARGIN + FONT_SIZE, 3 * MARGIN
    page = Image.new("RGB", (width, head + panels[0].height + foot), PAGE)
    draw = ImageDraw.Draw(page)
    draw.text((MARGIN, head / 2), title, INK, _font(FONT_SIZE + 4), anchor="lm")
    x = MARGIN
    for panel in panels:
        page.paste(panel, (x, head))
        x += panel.width + MARGIN
    _draw_legend(draw, _legend(sample, prediction), page.height - foot / 2)
    return page


def _legend(sample: Sample, prediction: str) -> list[Entry]:
    names = enumerate(sample.class_names)
    return [
        Entry(PREDICTION, prediction, filled=False),
        Entry(REFERENCE, "reference", filled=False),
        *(Entry(STROKES[k % len(STROKES)], f"stroke: {name}", filled=True) for k, name in names),
    ]


def _draw_legend(draw: ImageDraw.ImageDraw, entries: Sequence[Entry], y: float) -> None:
    x, font = float(MARGIN), _font(FONT_SIZE)
    for entry in entries:
        half = 8 if entry.filled else 2
        draw.rounded_rectangle((x, y - half, x + 34, y + half), min(half, 5), entry.colour)
        draw.text((x + 44, y), entry.text, INK, font, anchor="lm")
        x += 44 + draw.textlength(entry.text, font) + 2 * MARGIN


def _panel(sample: Sample, mask: npt.NDArray[np.integer], z: int, width: int) -> Image.Image:
    """Draw one slice, `width` pixels wide."""
    pixels, strokes = _pixels(sample.image), _plane(sample.scribbles, z)
    if sample.image.spatial_ndim == 3:
        pixels = pixels[z]
    rows, columns = strokes.shape
    size = (width, round(width * rows / columns * _aspect(sample.image)))
    large = (size[0] * SUPERSAMPLING, size[1] * SUPERSAMPLING)
    panel = Image.fromarray(pixels).convert("RGB").resize(large, Image.Resampling.BICUBIC)
    scale = (large[1] / rows, large[0] / columns)
    for k in range(len(sample.class_names)):
        colour = STROKES[k % len(STROKES)]
        _fill(panel, strokes == k + 1, colour)
        _outline(panel, strokes == k + 1, scale, INK, 1)
    for labels, colour in ((sample.reference, REFERENCE), (mask, PREDICTION)):
        _outline(panel, _plane(labels, z) > 0, scale, CASING, LINE + 2)
        _outline(panel, _plane(labels, z) > 0, scale, colour, LINE)
    panel = panel.resize(size, Image.Resampling.LANCZOS)
    if sample.image.spatial_ndim == 3:
        ImageDraw.Draw(panel).text((12, 10), f"z = {z}", INK, _font(FONT_SIZE))
    return panel


def _fill(panel: Image.Image, area: npt.NDArray[np.bool_], colour: str) -> None:
    stencil = Image.fromarray((area * 230).astype(np.uint8))
    panel.paste(colour, (0, 0, *panel.size), stencil.resize(panel.size, Image.Resampling.BILINEAR))


def _outline(
    panel: Image.Image,
    area: npt.NDArray[np.bool_],
    scale: tuple[float, float],
    colour: str,
    width: int,
) -> None:
    """Draw the outline of an area as a line of `width` pixels of the finished picture."""
    draw = ImageDraw.Draw(panel)
    # a margin of the same leads outlines to the very edge of the image, but not along it
    for line in find_contours(np.pad(area, 1, mode="edge").astype(float), 0.5):
        points = (line - 1 + 0.5) * scale
        flat = [(float(x), float(y)) for y, x in points]
        draw.line(flat, colour, width * SUPERSAMPLING, joint="curve")


def _pixels(image: Volume) -> npt.NDArray[np.uint8]:
    """Return the image as 8-bit grey or RGB, shape ([Z,] Y, X[, 3])."""
    channels = np.moveaxis(image.channels_first(), 0, -1)
    data = channels[..., :3] if image.channels >= 3 else channels[..., 0]
    if data.dtype == np.uint8:
        return data.astype(np.uint8, copy=False)
    real = data.astype(np.float32)
    low, high = np.percentile(real, PERCENTILES)
    shown = np.clip((real - low) / max(high - low, 1e-9), 0, 1)
    return np.asarray(255 * shown, np.uint8)


def _plane(labels: npt.NDArray[np.integer], z: int) -> npt.NDArray[np.integer]:
    return labels[z] if labels.ndim == 3 else labels


def _aspect(image: Volume) -> float:
    return image.spacing[-2] / image.spacing[-1]


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
