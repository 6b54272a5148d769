"""``napari-msseg explain``: the inner variables of the network as images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from napari_msseg.cli.exits import say
from napari_msseg.cli.targets import check_distinct, check_fits, check_folder
from napari_msseg.io import atomic_path, read_image
from napari_msseg.io.guard import naming
from napari_msseg.preprocessing import normalise

SIDE, MARGIN, CAPTION = 220, 8, 18
MOST_FEATURES = 4
"""Features shown a grid: those with the largest weights' variance come first."""

Array = npt.NDArray[np.floating]


def run(model: Path, image_path: Path, folder: Path, axes: str | None) -> None:
    """Write one sheet a grid and one for the result.

    Raises
    ------
    InputError
        If model and image do not fit, or the folder cannot be written.
    """
    check_folder(folder, "the images")
    image = read_image(image_path, axes)
    with naming(image_path):
        pixels = normalise(image)
    from napari_msseg.cli.models import load_model
    from napari_msseg.explain import explain

    network = load_model(model).build()
    config = network.config
    with naming(image_path):
        check_fits(image, config)
    grids = [folder / f"grid_{level + 1}.png" for level in range(len(config.channels))]
    check_distinct((image_path, model), (folder / "result.png", *grids))
    found = explain(network, pixels.data)
    folder.mkdir(exist_ok=True)
    rows = [[("image", _slice(pixels.data[0], image.spatial_ndim))]]
    rows[0] += [
        (f"probability of class {k}", _slice(p, image.spatial_ndim))
        for k, p in enumerate(found.probabilities)
    ]
    _write(folder / "result.png", rows)
    for path, grid in zip(grids, found.grids, strict=True):
        spread = grid.weights.reshape(len(grid.weights), -1).std(axis=1)
        chosen = np.argsort(-spread)[:MOST_FEATURES]
        sheet = [
            [(f"{name} {c}", _slice(stack[c], image.spatial_ndim)) for c in chosen]
            for name, stack in (
                ("f, feature", grid.features),
                ("u, approximation", grid.approximation),
                ("w, weight", grid.weights),
            )
        ]
        sheet.append(
            [
                ("|g - N(u)| before", _slice(grid.residual_before, image.spatial_ndim)),
                ("|g - N(u)| after", _slice(grid.residual_after, image.spatial_ndim)),
            ]
        )
        _write(path, sheet)
        before, after = (float(r.mean()) for r in (grid.residual_before, grid.residual_after))
        say(f"{path}: stride {grid.stride}, mean residual {before:.3g} before, {after:.3g} after")


def _slice(data: Array, ndim: int) -> Array:
    """Return the image, or the middle slice of a volume."""
    return data[len(data) // 2] if ndim == 3 else data


def _write(path: Path, rows: list[list[tuple[str, Array]]]) -> None:
    width = max(len(row) for row in rows) * (SIDE + MARGIN) + MARGIN
    height = len(rows) * (SIDE + CAPTION + MARGIN) + MARGIN
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    for r, row in enumerate(rows):
        for c, (caption, data) in enumerate(row):
            x, y = MARGIN + c * (SIDE + MARGIN), MARGIN + r * (SIDE + CAPTION + MARGIN)
            low, high = float(data.min()), float(data.max())
            draw.text((x, y), f"{caption}  {low:.2g} … {high:.2g}", fill="black")
            grey = (data - low) / ((high - low) or 1) * 255
            picture = Image.fromarray(grey.astype(np.uint8))
            scale = SIDE / max(picture.size)
            size = [max(1, round(n * scale)) for n in picture.size]
            sheet.paste(
                picture.resize((size[0], size[1]), Image.Resampling.NEAREST), (x, y + CAPTION)
            )
    with atomic_path(path) as temporary:
        sheet.save(temporary)
