"""Options of the commands around supervised training: train, predict, evaluate, explain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_msseg.cli.app import Axes, Device, Report, Seed, Spacing, app
from napari_msseg.cli.exits import exit_codes

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="Weights (.safetensors).")]


@app.command("train")
def train_command(
    images: Annotated[
        Path,
        typer.Argument(
            metavar="IMAGES", help="Folder, image, list (.csv: image,labels a line), or MSD task."
        ),
    ],
    labels: Annotated[
        Path | None,
        typer.Argument(metavar="[LABELS]", help="Folder or label image, named as the images."),
    ] = None,
    *,
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="MODEL", help="Weights to write (.safetensors)."),
    ],
    scribbles: Annotated[
        Path | None,
        typer.Option(
            metavar="STROKES",
            help="Folder or label image of scribbles: 0 unlabelled, 1 background, 2 and up the "
            "foreground classes. An image of LABELS is labelled throughout, one of neither not.",
        ),
    ] = None,
    steps: Annotated[int, typer.Option(metavar="N", help="Training steps.")] = 1000,
    loss: Annotated[str, typer.Option(metavar="L", help="dice, ce or both.")] = "both",
    schedule: Annotated[
        str,
        typer.Option(metavar="S", help="Learning rate: cosine, step (x 0.8 a 200) or constant."),
    ] = "cosine",
    learning_rate: Annotated[
        float | None, typer.Option(metavar="R", help="Largest learning rate.")
    ] = None,
    batch: Annotated[int | None, typer.Option(metavar="N", help="Crops a step.")] = None,
    patch: Annotated[
        str | None, typer.Option(metavar="Z,Y,X", help="Size of a crop in pixels (2D: Y,X).")
    ] = None,
    channels: Annotated[
        str | None, typer.Option(metavar="A,B,…", help="Features on each grid, fine to coarse.")
    ] = None,
    flips: Annotated[
        bool | None,
        typer.Option(
            "--flips/--no-flips", help="Mirror crops at random. Default: images, not volumes."
        ),
    ] = None,
    validation: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Images held out to choose the best weights. Default: a fifth of ten or more; "
            "none with scribbles.",
        ),
    ] = None,
    patience: Annotated[
        int, typer.Option(metavar="N", help="Stop after N validations without gain; 0: never.")
    ] = 0,
    binary: Annotated[
        bool, typer.Option("--binary", help="Every label above 0 is one class (objects).")
    ] = False,
    model: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Start from these weights.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the training that was stopped.")
    ] = False,
    axes: Axes = None,
    device: Device = "auto",
    seed: Seed = 0,
    json: Report = None,
) -> None:
    """Train a network on images and their label images."""
    with exit_codes():
        from napari_msseg.cli.train import run
        from napari_msseg.cli.train_options import Request

        run(
            Request(
                images=images,
                labels=labels,
                scribbles=scribbles,
                output=output,
                steps=steps,
                loss=loss,
                schedule=schedule,
                learning_rate=learning_rate,
                batch=batch,
                patch=patch,
                channels=channels,
                flips=flips,
                validation=validation,
                patience=patience,
                binary=binary,
                model=model,
                resume=resume,
                axes=axes,
                device=device,
                seed=seed,
                report=json,
            )
        )


@app.command("predict")
def predict_command(
    model: Model,
    inputs: Annotated[
        list[Path], typer.Argument(metavar="INPUT...", help="Images, or folders of images.")
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", metavar="OUT", help="Mask of one image, or a folder for the masks."
        ),
    ],
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Write a file of class probabilities too.")
    ] = False,
    skip_done: Annotated[
        bool, typer.Option("--skip-done", help="Leave out images whose mask is there already.")
    ] = False,
    learn_from: Annotated[
        Path | None,
        typer.Option(
            "--learn-from",
            metavar="IMAGES",
            help="Scribbled images, a folder or a list: better masks, in more time.",
        ),
    ] = None,
    scribbles: Annotated[
        Path | None, typer.Option("--scribbles", help="What is painted on them.")
    ] = None,
    spacing: Spacing = None,
    axes: Axes = None,
    device: Device = "auto",
    json: Report = None,
) -> None:
    """Segment images with a trained network."""
    with exit_codes():
        from napari_msseg.cli.predict import Request, run

        run(
            Request(
                model,
                tuple(inputs),
                output,
                probabilities,
                spacing,
                axes,
                device,
                json,
                skip_done,
                learn_from,
                scribbles,
            )
        )


@app.command("evaluate")
def evaluate_command(
    prediction: Annotated[Path, typer.Argument(metavar="PRED", help="Mask, or folder of masks.")],
    truth: Annotated[Path, typer.Argument(metavar="TRUTH", help="Label image, or folder.")],
    spacing: Spacing = None,
    instances: Annotated[
        bool,
        typer.Option("--instances", help="TRUTH numbers objects: score foreground and mDice."),
    ] = False,
    json: Report = None,
) -> None:
    """Score masks against label images: Acc, IoU, mIoU, DSC, surface distance."""
    with exit_codes():
        from napari_msseg.cli.evaluate import run

        run(prediction, truth, spacing, instances, json)


@app.command("explain")
def explain_command(
    model: Model,
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="An image or a volume.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="Folder for the images.")
    ],
    axes: Axes = None,
) -> None:
    """Write what the network computed on every grid: u, w and the residual, as images."""
    with exit_codes():
        from napari_msseg.cli.explain import run

        run(model, image, output, axes)


@app.command("simulate-scribbles")
def simulate_scribbles_command(
    truth: Annotated[
        Path, typer.Argument(metavar="TRUTH", help="Label image, or folder: numbered objects.")
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", metavar="OUT", help="Scribbles of one image, or a folder for them."
        ),
    ],
    ratio: Annotated[
        float, typer.Option(metavar="R", help="Share of the objects that get a stroke, to 1.")
    ] = 0.3,
    style: Annotated[
        str, typer.Option(metavar="S", help="skeleton, or freehand: displaced, with gaps.")
    ] = "skeleton",
    brush: Annotated[
        int, typer.Option(metavar="N", help="Width of a freehand stroke in pixels, odd.")
    ] = 1,
    classes: Annotated[
        bool, typer.Option("--classes", help="TRUTH holds classes, not numbered objects.")
    ] = False,
    slices: Annotated[
        int, typer.Option(metavar="N", help="Slices of a volume that get strokes.")
    ] = 3,
    seed: Seed = 0,
) -> None:
    """Draw the strokes that somebody might have painted over a label image."""
    with exit_codes():
        from napari_msseg.cli.simulate import Request, run

        run(Request(truth, output, ratio, seed, style, brush, classes, slices))
