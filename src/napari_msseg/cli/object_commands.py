"""Options of the command that measures objects."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_msseg.cli.app import Report, Spacing, app
from napari_msseg.cli.exits import exit_codes


@app.command("measure")
def measure_command(
    mask: Annotated[Path, typer.Argument(metavar="MASK", help="Mask, or folder of masks.")],
    image: Annotated[
        Path | None,
        typer.Argument(metavar="[IMAGE]", help="Image, or folder: intensities are measured too."),
    ] = None,
    *,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="TABLE", help="Table to write (.csv).")
    ],
    objects: Annotated[
        Path | None,
        typer.Option(metavar="OUT", help="Write the numbered objects, or a folder of them."),
    ] = None,
    classes: Annotated[
        str | None, typer.Option(metavar="A,B,…", help="Values of the mask. Default: all but 0.")
    ] = None,
    smoothing: Annotated[
        int,
        typer.Option("--smooth", metavar="N", min=0, help="Steps of threshold dynamics before."),
    ] = 0,
    fill: Annotated[
        float, typer.Option(metavar="A", min=0, help="Fill holes smaller than this.")
    ] = 0.0,
    min_size: Annotated[
        float, typer.Option(metavar="A", min=0, help="Leave out objects smaller than this.")
    ] = 0.0,
    split: Annotated[
        float | None,
        typer.Option(
            metavar="W",
            min=0,
            max=1,
            help="Cut objects where they are narrower than this share of the smaller part (.75).",
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(metavar="P", help="MASK holds probabilities: those above P are objects."),
    ] = None,
    numbered: Annotated[
        bool, typer.Option("--numbered", help="MASK holds numbered objects already.")
    ] = False,
    spacing: Spacing = None,
    json: Report = None,
) -> None:
    """Measure the objects of masks, in the unit of the file.

    Sizes are areas of images and volumes of volumes, lengths the same unit unsquared.
    """
    with exit_codes():
        from napari_msseg.cli.measure import Request, run

        run(
            Request(
                mask=mask,
                image=image,
                table=output,
                objects=objects,
                classes=classes,
                smoothing=smoothing,
                fill_below=fill,
                min_size=min_size,
                split=split,
                threshold=threshold,
                numbered=numbered,
                spacing=spacing,
                report=json,
            )
        )
