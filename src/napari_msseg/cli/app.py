"""The command line application and the options that its commands share."""

from __future__ import annotations

from typing import Annotated

import typer

LARGEST_SEED = 2**32 - 1

app = typer.Typer(
    help="Segment images and volumes from a few scribbles.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Seed = Annotated[
    int,
    typer.Option(metavar="N", min=0, max=LARGEST_SEED, help="Seed of every random choice."),
]
Device = Annotated[str, typer.Option(metavar="D", help="auto, cpu, cuda, cuda:1 or mps.")]
Report = Annotated[
    str | None,
    typer.Option(metavar="REPORT", help="Write a JSON report to this file; - is standard output."),
]
Spacing = Annotated[
    str | None,
    typer.Option(metavar="Z,Y,X", help="Pixel size (2D: Y,X); wins over the file's own."),
]
Frame = Annotated[
    int | None,
    typer.Option(metavar="N", min=0, help="Of a time series, the frame to segment, from 0."),
]
Axes = Annotated[
    str | None,
    typer.Option(metavar="AXES", help="Axes of the image, e.g. CZYX; wins over the file's own."),
]
