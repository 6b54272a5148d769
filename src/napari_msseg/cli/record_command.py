"""Options of the command that makes a record of a segmentation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_msseg.cli.app import Axes, Device, Seed, Spacing, app
from napari_msseg.cli.exits import exit_codes

DEFAULT_STEPS = 300


@app.command("record")
def record_command(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="The image that was painted on.")],
    scribbles: Annotated[
        Path,
        typer.Option(metavar="STROKES", help="A session (.msseg), or a label image of scribbles."),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="Folder of the record: a new one.")
    ],
    steps: Annotated[int, typer.Option(metavar="N", help="Training steps.")] = DEFAULT_STEPS,
    device: Device = "cpu",
    spacing: Spacing = None,
    axes: Axes = None,
    seed: Seed = 0,
) -> None:
    """Make a record that can be cited: mask, strokes, weights, versions, a command that repeats it.

    The training is run anew from strokes and seed, step by step, so that the command in the record
    gives the same mask again on the same machine.
    """
    with exit_codes():
        from napari_msseg.cli.record import Request, run

        run(Request(image, scribbles, output, steps, device, spacing, axes, seed))
