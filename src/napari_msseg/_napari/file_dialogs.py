"""Asks where a mask or a session goes, or comes from, and says what became of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from napari.layers import Image, Labels
from napari.utils.notifications import show_info
from psygnal import Signal
from qtpy.QtWidgets import QFileDialog

from napari_msseg import io
from napari_msseg._napari import layers
from napari_msseg._napari.errand import Errand
from napari_msseg._napari.live import LiveSession
from napari_msseg._napari.panels import LayerPanel
from napari_msseg._napari.session_files import SessionFiles, open_file
from napari_msseg.errors import InputError
from napari_msseg.io.dtypes import whole_numbers
from napari_msseg.io.guard import told_to
from napari_msseg.objects.table import Measurements, write_csv

NIFTI_TYPES = "NIfTI (*.nii.gz *.nii);;TIFF (*.tif *.tiff);;OME-TIFF (*.ome.tif)"
FILE_TYPES = "TIFF (*.tif *.tiff);;OME-TIFF (*.ome.tif);;NIfTI (*.nii.gz *.nii)"
IMAGE_TYPES = "Images (*.tif *.tiff *.nii *.nii.gz *.png *.jpg *.jpeg *.bmp);;All files (*)"
TABLE_TYPES = "Comma-separated values (*.csv)"
SESSION_TYPES = "Scribble session (*.msseg)"
NO_PREDICTION = "There is no prediction yet: press Train first."
NO_IMAGE = "There is nothing to save: open an image first."


class FileDialogs:
    """Saves masks and sessions, and opens sessions, where the user wants.

    Parameters
    ----------
    session : LiveSession
    files : SessionFiles
    panel : LayerPanel
        Knows what is chosen, and in which window.
    folder : str
        Where files go of images that came from no file.
    """

    said = Signal(str)
    warned = Signal(str)
    opened = Signal(Labels)  # the layer with the strokes of a session
    folder_used = Signal(str)

    def __init__(
        self, session: LiveSession, files: SessionFiles, panel: LayerPanel, folder: str
    ) -> None:
        self._session = session
        self._files = files
        self._panel = panel
        self._folder = folder
        self._errand = Errand()
        files.saved.connect(self._say_saved)

    def close(self) -> None:
        """Wait until a mask that somebody wanted is on the disk. Idempotent."""
        self._errand.close(seconds=None)

    def export(self, path: Path) -> None:
        """Write the prediction of the current image to a file, and its classes beside it.

        Raises
        ------
        InputError
            If there is no prediction, or the file cannot be written.
        """
        self._export_to(path, *self._predicted())()

    def _export_to(self, path: Path, image: Image, prediction: Labels) -> Callable[[], None]:
        """Return what writes the prediction of now to a file, whatever becomes of it meanwhile."""
        shown = layers.mask_of(prediction, self._exported_frame(image), image)
        mask, classes = shown.like(np.array(shown.data), "T"), self._session.classes
        return lambda: io.write_mask(path, whole_numbers(mask.data), mask, classes)

    def _predicted(self) -> tuple[Image, Labels]:
        """Return the image that is chosen and its prediction, else those that are worked on."""
        session, chosen = self._session, self._panel.chosen_image()
        for image in (chosen, session.image):
            # of volumes over time one is saved, that of now
            if image is not None and (image is session.image or image.ndim <= 3):
                prediction = session.answers.of(image)
                if prediction is not None and prediction in session.viewer.layers:
                    return image, prediction
        raise InputError(NO_IMAGE if chosen is None else NO_PREDICTION)

    def _exported_frame(self, image: Image) -> layers.Frame:
        """Frames of volumes are saved one at a time, frames of images as the stack they are."""
        return self._session.frame if image.ndim > 3 else ()

    # ----------------------------------------------------------------------- asking

    def save_mask(self) -> None:
        """Ask for a file and write the prediction to it."""
        try:
            image, prediction = self._predicted()
        except InputError as error:
            self.warned.emit(str(error))
            return
        nifti = layers.is_nifti(image)
        suffix = ".nii.gz" if nifti else ".tif"
        name = self._suggested(f"{image.name}_mask{suffix}")
        types = NIFTI_TYPES if nifti else FILE_TYPES
        title = f"Save mask of “{image.name}”"
        path, _ = QFileDialog.getSaveFileName(self._panel.window(), title, name, types)
        path = f"{path}{suffix}" if path and not Path(path).suffix else path
        if path and self._errand.is_running:
            self.warned.emit("Another mask is being written: save once more when it is there.")
        elif path:
            self._try(lambda: self._save_in_a_thread(Path(path), image, prediction))

    def _save_in_a_thread(self, path: Path, image: Image, prediction: Labels) -> None:
        """Write a mask while the window goes on: large ones take seconds to be compressed."""
        told: list[str] = []
        answered = self._session.answers.answered(self._exported_frame(image), prediction)
        name, write = image.name, self._export_to(path, image, prediction)

        def listen_and_write() -> None:
            with told_to(told.append):
                write()

        meaning = ", ".join(f"{c.class_} = {c.name}" for c in self._session.classes)

        def say() -> None:
            self._say_saved(str(path), f"{path.name}, in which {meaning}")
            for words in told:
                self.warned.emit(f"Saved, but {words}")
            self._say_gaps(name, answered)

        self.said.emit(f"Writing {path} …")
        self._errand.begin(listen_and_write, lambda _: say(), self._say_failed)

    def _say_failed(self, error: Exception) -> None:
        known = isinstance(error, InputError)
        self.warned.emit(str(error) if known else f"The mask could not be written: {error}")

    def save_table(self, table: Measurements, image: str) -> None:
        """Ask for a file and write the table of objects of an image to it."""
        name = self._suggested(f"{image}_objects.csv")
        window = self._panel.window()
        path, _ = QFileDialog.getSaveFileName(window, "Save table", name, TABLE_TYPES)
        path = f"{path}.csv" if path and not Path(path).suffix else path
        about = {"image": image}
        if path and self._try(lambda: write_csv(Path(path), [(about, table)])):
            self._say_saved(path)

    def save_session(self) -> None:
        """Ask for a file and write strokes, classes and model to it."""
        image, scribbles = self._panel.chosen_image(), self._panel.chosen_scribbles()
        if image is None or scribbles is None:
            self.warned.emit("There is nothing to save yet: press “New scribbles” and paint.")
            return
        name = self._suggested(f"{image.name}.msseg")
        window = self._panel.window()
        path, _ = QFileDialog.getSaveFileName(window, "Save session", name, SESSION_TYPES)
        if path:
            self._try(lambda: self._files.save(Path(path), image, scribbles))

    def open_images(self) -> list[Image]:
        """Ask for files and open each as a layer, with our reader: it keeps spacing and units."""
        viewer, name = self._session.viewer, self._suggested("")
        paths, _ = QFileDialog.getOpenFileNames(
            self._panel.window(), "Open images", name, IMAGE_TYPES
        )
        opened = []
        for path in paths:
            try:
                opened += open_file(viewer, path)
            except InputError as error:  # one of many may be broken
                self.warned.emit(str(error))
        return [layer for layer in opened if layers.is_image(layer)]

    def open_session(self) -> None:
        """Ask for a session file and go on with it."""
        window, name = self._panel.window(), self._suggested("")
        path, _ = QFileDialog.getOpenFileName(window, "Open session", name, SESSION_TYPES)
        if path:
            self._try(lambda: self.opened.emit(self._files.open(Path(path))))

    def _suggested(self, name: str) -> str:
        image = self._panel.chosen_image()
        source = "" if image is None else str(image.source.path or "")
        for folder in (str(Path(source).parent) if source else "", self._folder):
            if folder and Path(folder).is_dir():
                return str(Path(folder) / name)
        return name

    def _try(self, action: Callable[[], object]) -> bool:
        """Do something; what is wrong with the input is told."""
        try:
            action()
        except InputError as error:
            self.warned.emit(str(error))
            return False
        return True

    # ---------------------------------------------------------------------- telling

    def _say_saved(self, path: str, what: str = "") -> None:
        self._folder = str(Path(path).resolve().parent)
        self.folder_used.emit(self._folder)
        self.said.emit(f"Saved {what or path}")
        show_info(f"Saved {path}")

    def _say_gaps(self, image: str, answered: float) -> None:
        """Say what nobody would see in the file: where there is nothing but zeros."""
        if answered < 1:
            self.warned.emit(
                f"Saved, but {max(1, round(100 * (1 - answered)))} % of “{image}” had no "
                "answer yet and are background in the file: train on, or on each frame, and save "
                "again."
            )
