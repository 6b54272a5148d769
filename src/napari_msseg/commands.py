"""What the owner of a worker says to it, and what the worker says beside a session's events."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_msseg.config import SessionConfig
from napari_msseg.events import (
    Failed,
    HeldOutScored,
    ImageRanked,
    MapReady,
    ModelKept,
    Notice,
    PredictionReady,
    SpotsFound,
    StateChanged,
    StepDone,
)


@dataclass(frozen=True, kw_only=True)
class SharedImage:
    """Where an image lies in memory that both processes map.

    Attributes
    ----------
    path : str
        The mapped file; the worker may delete its name once it is mapped.
    dtype : str
    shape : tuple of int
    axes : str
    spacing : tuple of float
    """

    path: str
    dtype: str
    shape: tuple[int, ...]
    axes: str
    spacing: tuple[float, ...]

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        """Its size along ([Z,] Y, X)."""
        return tuple(n for n, axis in zip(self.shape, self.axes, strict=True) if axis != "C")

    @property
    def kind(self) -> tuple[int, int]:
        """Number of its spatial axes and of its channels."""
        channels = self.shape[self.axes.index("C")] if "C" in self.axes else 1
        return len(self.axes.replace("C", "")), channels


@dataclass(frozen=True, kw_only=True, eq=False)
class StartSession:
    """Begin a session; one that runs is stopped first.

    Attributes
    ----------
    session : int
        Its number, stamped on all that it says.
    image : SharedImage
    config : SessionConfig
        Without a number of threads it gets all physical cores but one.
    keep_model : bool
        Go on from the weights of the session before, where they fit.
    model_path : str
        A model file to go on from, instead of the session before; empty: none.
    indices, classes, generation, locked
        The scribbles, as in `ScribbleSnapshot`.
    """

    session: int
    image: SharedImage
    config: SessionConfig
    keep_model: bool
    indices: npt.NDArray[np.int64]
    classes: npt.NDArray[np.uint8]
    generation: int
    model_path: str = ""
    locked: npt.NDArray[np.bool_] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class ShareCompanion:
    """Another image for the session that is started next, and what is painted on it.

    Attributes
    ----------
    session : int
        Of that session; sent before it is started.
    name : str
        By which `RankImages` speaks of it.
    image : SharedImage
    indices, classes
        Its scribbles, as in `ScribbleSnapshot`.
    """

    session: int
    name: str
    image: SharedImage
    indices: npt.NDArray[np.int64]
    classes: npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, eq=False)
class SubmitScribbles:
    """New scribbles for the running session."""

    session: int
    shape: tuple[int, ...]
    indices: npt.NDArray[np.int64]
    classes: npt.NDArray[np.uint8]
    generation: int
    locked: npt.NDArray[np.bool_] | None = None


@dataclass(frozen=True, kw_only=True)
class PauseSession:
    """Pause the running session."""

    session: int


@dataclass(frozen=True, kw_only=True)
class ResumeSession:
    """Go on after a pause."""

    session: int


@dataclass(frozen=True, kw_only=True)
class StopSession:
    """End the running session; its weights are kept for the next."""

    session: int


@dataclass(frozen=True, kw_only=True)
class ShowView:
    """What the user looks at: it is predicted first.

    Attributes
    ----------
    start, stop : tuple of int
        Corners of the visible part of the image, in pixels.
    """

    session: int
    start: tuple[int, ...]
    stop: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class ShowMaps:
    """Which pictures of what it thinks are wanted, from now on; these replace those before.

    Attributes
    ----------
    uncertainty, pseudo_labels : bool
    probabilities : tuple of int
        The classes whose probability is wanted.
    """

    session: int
    uncertainty: bool = False
    pseudo_labels: bool = False
    probabilities: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class AskSpots:
    """Ask for the places where a stroke would help most."""

    session: int


@dataclass(frozen=True, kw_only=True)
class RankImages:
    """Ask how unsure the classifiers are of other images; one `ImageRanked` each.

    Attributes
    ----------
    names : tuple of str
        Of companions, or paths of image files.
    """

    session: int
    names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class KeepModel:
    """Write the weights of now to a file, also after the end of the session.

    Attributes
    ----------
    path : str
    """

    session: int
    path: str


@dataclass(frozen=True, kw_only=True)
class ForgetClasses:
    """Predict these classes no longer, until somebody paints them again.

    Attributes
    ----------
    classes : tuple of int
        All that are gone.
    """

    session: int
    classes: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class WorkerReady:
    """The worker has loaded what it needs and waits for a session.

    Attributes
    ----------
    devices : tuple of str
        Names of the devices that can be chosen, the automatic choice first.
    description : str
        The automatic choice in words.
    """

    devices: tuple[str, ...]
    description: str


@dataclass(frozen=True, kw_only=True)
class ImageMapped:
    """The worker has mapped the image of a session: its file name is no longer needed."""

    session: int


REQUESTS = (ForgetClasses, ShowView, ShowMaps, AskSpots, RankImages, KeepModel)
Request = ForgetClasses | ShowView | ShowMaps | AskSpots | RankImages | KeepModel
"""What a running session is asked beside its scribbles and switches."""
COMMANDS = (
    ShareCompanion,
    StartSession,
    SubmitScribbles,
    PauseSession,
    ResumeSession,
    StopSession,
    *REQUESTS,
)
REPLIES = (
    WorkerReady,
    ImageMapped,
    StateChanged,
    StepDone,
    PredictionReady,
    MapReady,
    SpotsFound,
    ImageRanked,
    HeldOutScored,
    ModelKept,
    Notice,
    Failed,
)
