"""The options of every command. What they do is imported when one is chosen: help is instant."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from napari_msseg.cli import object_commands, record_command, supervised_commands
from napari_msseg.cli.app import Axes, Device, Frame, Report, Seed, Spacing, app
from napari_msseg.cli.exits import exit_codes

__all__ = ["app", "main", "object_commands", "record_command", "supervised_commands"]

DEFAULT_SECONDS = 30.0


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"napari-msseg {version('napari-msseg')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Take the options that stand before the command."""


@app.command("segment")
def segment_command(
    image: Annotated[
        Path, typer.Argument(metavar="IMAGE", help="TIFF, PNG, JPEG, BMP or NIfTI, 2D or 3D.")
    ],
    scribbles: Annotated[
        Path,
        typer.Option(
            metavar="LABELS",
            help="Label image: 0 unlabelled, 1 background, 2 and up the foreground classes.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            metavar="MASK",
            help="Mask to write: .tif, .ome.tif, .png (2D) or .nii.gz. 0 is background.",
        ),
    ],
    seconds: Annotated[
        float | None,
        typer.Option(
            metavar="S",
            help=f"Train for so long. Default {DEFAULT_SECONDS:.0f}, without limit with --steps.",
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(metavar="N", help="Train for so many steps: gives the same mask again."),
    ] = None,
    device: Device = "auto",
    spacing: Spacing = None,
    axes: Axes = None,
    frame: Frame = None,
    probabilities: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the probability of each class (TIFF or NIfTI)."),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Start from the weights that --save-model wrote."),
    ] = None,
    save_model: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the trained weights (.safetensors)."),
    ] = None,
    from_scratch: Annotated[
        bool,
        typer.Option("--from-scratch", help="Without the network that has seen other images."),
    ] = False,
    threads: Annotated[
        int,
        typer.Option(metavar="N", min=0, help="CPU threads. Default: cores that nobody else uses."),
    ] = 0,
    seed: Seed = 0,
    json: Report = None,
) -> None:
    """Train on scribbles and write the mask of the whole image."""
    with exit_codes():
        from napari_msseg.cli.segment import Request, run

        if seconds is None and steps is None:
            seconds = DEFAULT_SECONDS
        run(
            Request(
                image=image,
                scribbles=scribbles,
                mask=output,
                seconds=seconds,
                steps=steps,
                device=device,
                spacing=spacing,
                axes=axes,
                probabilities=probabilities,
                model=model,
                save_model=save_model,
                warm_start=not from_scratch,
                seed=seed,
                report=json,
                threads=threads,
                frame=frame,
            )
        )


@app.command("demo")
def demo_command(
    gui: Annotated[
        bool, typer.Option("--gui", help="Open the tissue image in napari instead.")
    ] = False,
    seconds: Annotated[
        float, typer.Option(metavar="S", help="Training time of both images together.")
    ] = 36.0,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for masks, pictures and report.json.")
    ] = Path("demo-out"),
    seed: Seed = 0,
    device: Device = "auto",
    json: Report = None,
) -> None:
    """Segment two ready-made images and score the masks.

    A stained tissue (2D) and an MR volume of a brain (3D), against reference masks.
    """
    with exit_codes():
        if gui:
            from napari_msseg.cli.gui import open_gui

            raise typer.Exit(open_gui("tissue"))
        from napari_msseg.cli.demo import run

        run(out, seconds, seed, device, json)


def main() -> None:
    """Run the console script ``napari-msseg``."""
    app(prog_name="napari-msseg")


if __name__ == "__main__":
    main()
