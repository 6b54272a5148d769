"""What a paper says of how a mask was made."""

from __future__ import annotations

import textwrap
from typing import Any

WIDTH = 100


def methods_of(record: dict[str, Any]) -> str:
    """Return a paragraph for a methods section, and how to repeat what it says.

    Parameters
    ----------
    record : dict
        As of ``record.json``.

    Returns
    -------
    str
        Markdown.
    """
    return "\n\n".join(
        (
            "# Methods",
            textwrap.fill(" ".join((_image(record), _training(record), _software(record))), WIDTH),
            "## To repeat it",
            "In this folder, on the same machine and with the same versions, this writes the same "
            "mask again:",
            f"    {record['command']}",
            f"The image has the fingerprint {record['image']['fingerprint']}; all settings are in "
            "record.json.\n",
        )
    )


def _kind(record: dict[str, Any]) -> str:
    return "image" if len(record["image"]["spacing"]) == 2 else "volume"


def _image(record: dict[str, Any]) -> str:
    image = record["image"]
    size = " × ".join(str(n) for n in image["shape"])
    pixel = " × ".join(f"{s:g}" for s in image["spacing"])
    painted = [c for c in record["classes"] if c["strokes"]]
    names = [c["name"] or f"class {c['class']}" for c in painted]
    strokes = ", ".join(
        f"{c['strokes']} of {name} ({c['painted_pixels']} pixels)"
        for c, name in zip(painted, names, strict=True)
    )
    locked = record["locked_pixels"]
    accepted = f" {locked} pixels were accepted by hand as they are." if locked else ""
    return (
        f"The {_kind(record)} ({size} pixels of {pixel} {image['unit']}) was segmented with "
        f"napari-msseg {record['versions']['napari-msseg']} from "
        f"{sum(c['strokes'] for c in painted)} strokes: {strokes}.{accepted}"
    )


def _training(record: dict[str, Any]) -> str:
    config = record["configuration"]
    channels = config["model"]["channels"]
    return (
        f"{_first_answer(record)} An MSNet, a network unrolled from a multigrid solver of the "
        f"Mumford–Shah model, of {len(channels)} grids with {', '.join(map(str, channels))} "
        f"channels, was trained on the strokes for {config['max_steps']} steps with "
        "Scribble2Label pseudo-labels and multiscale contrastive regularisation (seed "
        f"{record['seed']}). The mask is that of the ensemble of both; where it was not certain, "
        f"boundaries were put onto edges of the {_kind(record)} by a watershed."
    )


def _first_answer(record: dict[str, Any]) -> str:
    cheap = "A random forest, a linear discriminant and a logistic regression on Gaussian features"
    weighted = "weighted by the edges of the image, "
    if _kind(record) == "volume":
        cheap = (
            "A random forest and a linear discriminant on Gaussian features, a random walker that "
            "starts from the strokes"
        )
        weighted = ""
    if record["guide"] is None:
        return f"{cheap}, {weighted or 'together '}gave a first answer."
    return (
        f"{cheap}, and a network that ships with napari-msseg and was trained on other images, "
        f"{weighted}gave a first answer."
    )


def _software(record: dict[str, Any]) -> str:
    versions = record["versions"]
    named = {"torch": "PyTorch", "scikit-learn": "scikit-learn", "scikit-image": "scikit-image"}
    others = ", ".join(f"{name} {versions[key]}" for key, name in named.items())
    return f"Software: Python {record['python']}, {others}."
