"""From an image and scribbles to a mask in one call: the session, run to its end."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_msseg.checkpoint import Checkpoint
from napari_msseg.companions import Companion
from napari_msseg.config import SessionConfig, default_config
from napari_msseg.errors import InputError
from napari_msseg.events import Event, Failed, Notice, PredictionReady, StepDone
from napari_msseg.scribbles import ScribbleSnapshot
from napari_msseg.session import Session
from napari_msseg.trainer import ExtraLoss
from napari_msseg.volume import Volume

DEFAULT_SECONDS = 30.0


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The outcome of `segment`.

    Attributes
    ----------
    mask : ndarray of uint8, shape ([Z,] Y, X)
        Classes, background 0.
    probabilities : ndarray of float16, shape (K, [Z,] Y, X), or None
    model : Checkpoint
        The weights that made it.
    steps : int
    seconds_training : float
        From the first step to the last.
    seconds_to_first_answer : float
        From the call to the first prediction of the whole image.
    seconds_total : float
    device : str
        In words, with the precision.
    notices : tuple of str
        What was said on the way.
    """

    mask: npt.NDArray[np.uint8]
    probabilities: npt.NDArray[np.float16] | None
    model: Checkpoint
    steps: int
    seconds_training: float
    seconds_to_first_answer: float
    seconds_total: float
    device: str
    notices: tuple[str, ...]


def segment(
    image: Volume,
    scribbles: npt.NDArray[np.integer] | ScribbleSnapshot,
    config: SessionConfig | None = None,
    model: Checkpoint | None = None,
    on_event: Callable[[Event], None] | None = None,
    *,
    seconds: float | None = None,
    extra_loss: ExtraLoss | None = None,
    companions: Sequence[Companion] = (),
) -> Segmentation:
    """Train on scribbles and segment the image.

    Parameters
    ----------
    image : Volume
    scribbles : ndarray of int or ScribbleSnapshot
        0 unlabelled, 1 background, 2 … foreground classes; shape of the image.
    config : SessionConfig, optional
        With `max_steps` or `max_seconds`, or it would not end. Default: `default_config` and
        `DEFAULT_SECONDS`.
    model : Checkpoint, optional
        Weights to start from.
    on_event : callable, optional
        Is shown every event, for progress.
    seconds : float, optional
        Seconds to train, counted from the first step, instead of the configuration's.
    extra_loss : callable, optional
        A loss of your own, see `trainer.ExtraLoss`.
    companions : sequence of Companion
        Other images, whose strokes are learned from as well.

    Raises
    ------
    InputError
        If the input cannot be used, or training failed because of it.
    RuntimeError
        If training failed through a defect; the message holds the traceback.
    """
    config = _with_budget(config, seconds, image)
    if not isinstance(scribbles, ScribbleSnapshot):
        scribbles = ScribbleSnapshot.from_labels(scribbles)
    started = time.monotonic()
    session = Session(image, scribbles, config, model, extra_loss=extra_loss, companions=companions)
    canvas = _Canvas(image.spatial_shape)
    training_seconds, first_answer, steps = 0.0, float("nan"), 0
    notices = []
    for event in session.run():
        match event:
            case PredictionReady():
                canvas.paint(event)
                if event.last and np.isnan(first_answer):
                    first_answer = time.monotonic() - started
            case StepDone():
                training_seconds, steps = event.seconds, event.step
            case Notice():
                notices.append(event.message)
            case Failed(details=""):
                raise InputError(event.message)
            case Failed():
                raise RuntimeError(f"{event.message}\n{event.details}")
        if on_event is not None:
            on_event(event)
    trained = session.checkpoint()
    if trained is None:
        raise InputError("the time was used up before the first training step: allow more seconds")
    return Segmentation(
        mask=canvas.mask,
        probabilities=canvas.probabilities,
        model=trained,
        steps=steps,
        seconds_training=training_seconds,
        seconds_to_first_answer=first_answer,
        seconds_total=time.monotonic() - started,
        device=session.device_in_words,
        notices=tuple(notices),
    )


def _with_budget(
    config: SessionConfig | None, seconds: float | None, image: Volume
) -> SessionConfig:
    """Return the configuration of a run that ends."""
    if config is None:
        config = default_config(image.spatial_ndim)
        seconds = DEFAULT_SECONDS if seconds is None else seconds
    if seconds is not None:
        config = dataclasses.replace(config, max_seconds=seconds)
    if config.max_steps is None and config.max_seconds is None:
        raise InputError("say how long to train: seconds or steps")
    return config


class _Canvas:
    """Puts the tiles of predictions together."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.mask = np.zeros(shape, np.uint8)
        self.probabilities: npt.NDArray[np.float16] | None = None

    def paint(self, tile: PredictionReady) -> None:
        self.mask[tile.region] = tile.classes
        if tile.probabilities is None:
            return
        n_classes = len(tile.probabilities)
        if self.probabilities is None or len(self.probabilities) != n_classes:
            self.probabilities = np.zeros((n_classes, *self.mask.shape), np.float16)
        self.probabilities[(slice(None), *tile.region)] = tile.probabilities
