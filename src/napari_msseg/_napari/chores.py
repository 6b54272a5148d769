"""What is done with a model beside the window: a folder of images segmented, a record made."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from napari.layers import Image
from psygnal import Signal
from qtpy.QtWidgets import QFileDialog

from napari_msseg import io
from napari_msseg._napari import layers
from napari_msseg._napari.background import BackgroundCommand
from napari_msseg._napari.errand import Errand
from napari_msseg._napari.keeper import Keeper
from napari_msseg._napari.live import LiveSession
from napari_msseg._napari.panels import ExportPanel, LayerPanel
from napari_msseg._napari.study import Study
from napari_msseg._napari.study_files import writing_lessons
from napari_msseg.classes import ClassTable
from napari_msseg.errors import InputError
from napari_msseg.events import Event, ModelKept
from napari_msseg.io.class_table import write_class_table
from napari_msseg.io.guard import between_programs
from napari_msseg.io.pairs import image_files, stem
from napari_msseg.saved_session import write_session

INTERRUPTED = 130
NO_MODEL = "There is no model yet: press Train first."


class Chores:
    """Asks for folders, runs ``napari-msseg predict`` or ``record``, and says how far it is.

    Parameters
    ----------
    session : LiveSession
    keeper : Keeper
    study : Study
        Knows what is learned from.
    panel : LayerPanel
        Knows what is chosen, and in which window.
    buttons : ExportPanel
    """

    said = Signal(str)
    warned = Signal(str)

    def __init__(
        self,
        session: LiveSession,
        keeper: Keeper,
        study: Study,
        panel: LayerPanel,
        buttons: ExportPanel,
    ) -> None:
        self._study = study
        self._session = session
        self._keeper = keeper
        self._panel = panel
        self._buttons = buttons
        self.command = BackgroundCommand()
        self.command.said.connect(self._count)
        self.command.ended.connect(self._conclude)
        self._waiting: tuple[str, Callable[[], None]] | None = None  # a model file, and what then
        self._errand = Errand()
        self._folder = tempfile.TemporaryDirectory(prefix="napari-msseg-")
        self._images = self._done = 0
        self._errors: list[str] = []
        self._pairs: list[tuple[Image, Path]] = []  # open images, and where their masks come
        self._outcome = ""
        self._places = self._interrupted = ("", "")
        self._tabled: tuple[str, str, ClassTable | None] = ("", "", None)
        buttons.apply_wanted.connect(self.apply)
        buttons.record_wanted.connect(self.record)
        study.apply_wanted.connect(self.apply_to_open)
        buttons.cancel_wanted.connect(self.cancel)
        session.told.connect(self._model_kept)

    def close(self) -> None:
        """End what runs. Idempotent."""
        self._waiting = None
        self._errand.close()
        self.command.close()
        self._folder.cleanup()

    def cancel(self) -> None:
        """End what runs: what it has written by then is whole."""
        if self._errand.is_running:
            self._errand.forget()
            self._drop()
            self.said.emit("Stopped: nothing was begun yet.")
        self.command.cancel()

    # ------------------------------------------------------------------------ chores

    def apply(self) -> None:
        """Segment all images of a folder with the model of now."""
        image, window = self._panel.chosen_image(), self._panel.window()
        if self._is_busy():
            return
        if image is None or not self._session.knows_a_model:
            self.warned.emit(NO_MODEL)
            return
        source = QFileDialog.getExistingDirectory(window, "Folder of images to segment")
        target = source and QFileDialog.getExistingDirectory(window, "Folder for the masks")
        if not target:
            return
        images = image_files(Path(source))
        if not images:
            self.warned.emit(f"{source} holds no image (TIFF, PNG, JPEG, BMP or NIfTI)")
            return
        if Path(source).resolve() == Path(target).resolve():
            self.warned.emit("Masks are named as their images: choose another folder for them")
            return
        write = self._lessons(image)
        model = str(Path(self._folder.name) / "model.safetensors")
        # what is there may be of an older model, unless it was this one that was interrupted
        goes_on = ["--skip-done"] if self._interrupted == (source, target) else []
        arguments = ["predict", model, source, "-o", target, *goes_on]
        outcome = f"the masks are in {target}"
        self._places = source, target
        self._tabled = source, target, self._session.classes
        self._waiting = model, lambda: self._prepare(write, arguments, len(images), outcome)
        self._session.keep_model(model)

    def apply_to_open(self) -> None:
        """Segment the other open images with the model of now, and show their masks."""
        image, folder = self._panel.chosen_image(), Path(self._folder.name) / "open"
        if self._is_busy():
            return
        if image is None or not self._session.knows_a_model:
            self.warned.emit(NO_MODEL)
            return
        images = self._study.open_images(image)
        if not images:
            self.warned.emit("There is no other open image, only films or none.")
            return
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "images").mkdir(parents=True)
        names = [f"{number}.ome.tif" for number in range(len(images))]
        pairs = [(other, folder / "masks" / n) for (other, _), n in zip(images, names, strict=True)]
        write_list, readings = self._lessons(image), [read for _, read in images]

        def write() -> Path | None:
            for read, name in zip(readings, names, strict=True):
                with between_programs():
                    io.write_image(folder / "images" / name, read())
            return write_list()

        model = str(folder / "model.safetensors")
        arguments = ["predict", model, str(folder / "images"), "-o", str(folder / "masks")]
        self._pairs, outcome = pairs, f"{len(pairs)} open images have a prediction"
        self._waiting = model, lambda: self._prepare(write, arguments, len(pairs), outcome)
        self._session.keep_model(model)

    def _show_masks(self) -> None:
        """Show the masks of open images that are there: of some, where not all could be done."""
        pairs, self._pairs = self._pairs, []
        for image, path in pairs:
            if image in self._session.viewer.layers and path.is_file():
                mask = np.asarray(io.read_labels(path)).astype(np.uint8)
                if mask.shape == layers.spatial_shape(image):
                    self._session.answers.show_mask(image, mask, self._session.classes)

    def _write_class_tables(self) -> None:
        """Lay the names of the classes beside the masks of a folder."""
        (source, target, classes), self._tabled = self._tabled, ("", "", None)
        if classes is None:
            return
        try:
            names = {stem(path) for path in image_files(Path(source))}
            for mask in image_files(Path(target)):
                if stem(mask) in names:
                    write_class_table(mask, classes)
        except InputError as error:
            self.warned.emit(str(error))

    def _is_busy(self) -> bool:
        """Whether something runs already; say so."""
        busy = self.command.is_running or self._waiting is not None or self._errand.is_running
        if busy:
            self.warned.emit("Something runs already: wait for it, or press Cancel.")
        return busy

    def _lessons(self, image: Image) -> Callable[[], Path | None]:
        """Return what writes the strokes, so that masks know them and not the network alone."""
        if self._session.frame:
            return lambda: None  # of a film one frame is trained on
        return writing_lessons(self._study.teachers(image), Path(self._folder.name) / "lessons")

    def record(self) -> None:
        """Train anew, in a way that can be repeated, and write all that the mask depends on."""
        image, scribbles = self._panel.chosen_image(), self._panel.chosen_scribbles()
        if image is None or scribbles is None:
            self.warned.emit("There is nothing to record yet: press “New scribbles” and paint.")
            return
        if image.ndim > 3 or self._panel.channels.chosen or self._panel.slices_are_frames:
            self.warned.emit("A record is of one image or volume: not of frames or several layers")
            return
        path = str(image.source.path or "")
        if not Path(path).is_file():
            self.warned.emit(f"“{image.name}” came from no file: save it, and open that.")
            return
        try:
            snapshot = layers.take_snapshot(scribbles, image, 0)
            locked = self._session.answers.locks.snapshot(image)
            (snapshot if locked is None else snapshot.with_locked(locked)).require_trainable()
            strokes = Path(self._folder.name) / "strokes.msseg"
            write_session(strokes, self._keeper.saved(image, snapshot))
        except InputError as error:
            self.warned.emit(str(error))
            return
        name = str(Path(path).parent / f"{image.name}_record")
        folder, _ = QFileDialog.getSaveFileName(self._panel.window(), "New folder for it", name)
        if folder:
            arguments = ["record", path, "--scribbles", str(strokes), "-o", folder]
            self._begin([*arguments, *self._geometry(image)], 1, f"the record is in {folder}")

    @staticmethod
    def _geometry(image: Image) -> list[str]:
        """Return the pixel size that the layer has: the user may have set it."""
        spacing, _ = layers.spacing_of(image)
        return ["--spacing", ",".join(f"{s:.10g}" for s in spacing)]

    # ----------------------------------------------------------------------- running

    def _model_kept(self, event: Event) -> None:
        if not isinstance(event, ModelKept) or self._waiting is None:
            return
        path, go_on = self._waiting
        if event.path != path:
            return
        self._waiting = None
        if event.error:
            self.warned.emit(f"the model cannot be written: {event.error}")
        else:
            go_on()

    def _prepare(
        self,
        write: Callable[[], Path | None],
        arguments: list[str],
        images: int,
        outcome: str,
    ) -> None:
        """Begin once strokes, and perhaps images, are written: in a thread."""

        def begin(lessons: Path | None) -> None:
            options = [] if lessons is None else ["--learn-from", str(lessons)]
            self._begin([*arguments, *options], images, outcome)

        self._buttons.show_chore("predict: reading images and strokes")
        self._errand.begin(write, begin, self._not_prepared)

    def _drop(self) -> None:
        """Forget what was prepared: nothing comes of it."""
        self._pairs, self._tabled = [], ("", "", None)
        self._buttons.show_chore("")

    def _not_prepared(self, error: Exception) -> None:
        self._drop()
        kind = "" if isinstance(error, InputError) else "an image cannot be read: "
        self.warned.emit(f"{kind}{error}")

    def _begin(self, arguments: list[str], images: int, outcome: str) -> None:
        self._images, self._done, self._errors, self._outcome = images, 0, [], outcome
        self._buttons.show_chore(f"{arguments[0]}: starting")
        self.command.start(arguments)

    def _count(self, line: str) -> None:
        if line.startswith("error: "):
            self._errors.append(line.removeprefix("error: "))
        self._done += 1
        if line:
            self._buttons.show_chore(f"{min(self._done, self._images)} of {self._images} · {line}")

    def _conclude(self, code: int) -> None:
        self._buttons.show_chore("")
        self._show_masks()
        self._write_class_tables()
        is_stopped = code in (INTERRUPTED, -1) and not self._errors
        self._interrupted = self._places if is_stopped else ("", "")
        if code == 0:
            self.said.emit(f"Done: {self._outcome}")
        elif is_stopped:
            again = "; the same folders again, and it goes on" if self._images > 1 else ""
            self.said.emit(f"Stopped: what is finished stays{again}.")
        else:
            first = self._errors[0] if self._errors else f"exit code {code}"
            more = f" (and {len(self._errors) - 2} more)" if len(self._errors) > 2 else ""
            self.warned.emit(f"Not all could be done: {first}{more}")
