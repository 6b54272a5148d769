"""Many images worked on together: those that are open, and those of a folder."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Image, Labels
from psygnal import Signal
from qtpy.QtWidgets import QFileDialog

from napari_msseg._napari import layers
from napari_msseg._napari.errand import Errand
from napari_msseg._napari.keeper import Keeper
from napari_msseg._napari.live import LiveSession
from napari_msseg._napari.loan import OtherImage
from napari_msseg._napari.member import Member
from napari_msseg._napari.session_files import open_file
from napari_msseg._napari.study_files import saving_strokes
from napari_msseg._napari.study_panel import Row, StudyPanel
from napari_msseg.advice import dice_of, mean_dice
from napari_msseg.errors import InputError
from napari_msseg.events import Event, HeldOutScored, ImageRanked, SessionState
from napari_msseg.io.pairs import image_files, stem
from napari_msseg.saved_session import SavedSession
from napari_msseg.scribbles import ScribbleSnapshot
from napari_msseg.volume import Volume

MOST_RANKED = 100
"""Images that are looked at to find the next one: of more, as many evenly spread over all."""


class Study:
    """Knows the images that are worked on together, goes to them, and closes those of a folder.

    Parameters
    ----------
    session : LiveSession
    keeper : Keeper
    panel : StudyPanel
    """

    apply_wanted = Signal()
    arrived = Signal(Member)  # its image is open, and is to be chosen
    said = Signal(str)
    warned = Signal(str)

    def __init__(self, session: LiveSession, keeper: Keeper, panel: StudyPanel) -> None:
        self._session = session
        self._keeper = keeper
        self._panel = panel
        self.members: list[Member] = []
        self.current: Member | None = None
        self.together = False
        """Whether strokes on all of them train one model."""
        self._asked: list[Member] = []  # that are being ranked
        self._is_opening = False
        self._errand = Errand()
        self.shares = False
        """Whether the image that was gone to has classes and model in common with those before."""
        session.told.connect(self._hear)
        panel.together_toggled.connect(self.work_together)
        panel.chosen.connect(self._choose)
        panel.folder_wanted.connect(self._ask_for_folder)
        panel.next_wanted.connect(self.next)
        panel.save_wanted.connect(self._ask_and_save)
        panel.apply_wanted.connect(self.apply_wanted.emit)

    def close(self) -> None:
        """Wait for what is being written. Idempotent."""
        self._errand.close()

    # ------------------------------------------------------------------ membership

    def list_open(self, images: Sequence[Image]) -> None:
        """Take the images that are open in the viewer for members, and let go of others."""
        if self._is_opening:
            return
        for member in self.members:
            if member.image is not None and member.image not in images:
                self._let_go(member)
        known = {id(m.image) for m in self.members} | {
            id(c) for m in self.members for c in m.channels
        }
        new = []
        for image in (image for image in images if id(image) not in known):
            source = str(Path(image.source.path).resolve()) if image.source.path else ""
            closed = [m for m in self.members if m.path and m.path == source and m.image is None]
            if closed:  # opened by hand
                closed[0].image = image
            else:
                new.append(Member(image.name, image=image))
        channels = {id(c) for m in self.members for c in m.channels}
        there = [m for m in self.members if m.path or m.image is not None]
        self.members = [m for m in there if m.path or id(m.image) not in channels] + new
        for member in self.members:
            if member.image is not None and not member.path:
                member.name = member.image.name
        self._show_all()

    def use_channels(self, image: Image, channels: Sequence[Image]) -> None:
        """Hear which other layers are channels of an image: they are no images of their own."""
        for member in self.members:
            if member.image is image and member.channels != tuple(channels):
                member.channels = tuple(channels)
                self.list_open([x for x in self._session.viewer.layers if layers.is_image(x)])
                return

    def _let_go(self, member: Member) -> None:
        """Hear that the image of a member is not open any more; what is painted on it is kept."""
        if member.path and member.image is not None and member.scribbles is not None:
            member.kept = self._keeper.saved(member.image, member.scribbles)
        member.was_film = member.is_film
        member.image, member.channels = None, ()

    def follow(self, chosen: Image | None) -> None:
        """Hear which image is chosen."""
        here = [m for m in self.members if chosen is not None and m.image is chosen]
        self.current = here[0] if here else None
        if self.current is not None:
            self.current.visited = True
        self._show_all()

    def add_folder(self, folder: Path) -> None:
        """Add the images of a folder, which are opened one at a time, and work on all together.

        Raises
        ------
        InputError
            If it cannot be listed, or holds no image.
        """
        found = [str(path.resolve()) for path in image_files(folder)]
        if not found:
            raise InputError(f"{folder} holds no image (TIFF, PNG, JPEG, BMP or NIfTI)")
        opened = {str(m.image.source.path or "") for m in self.members if m.image is not None}
        known = {m.path for m in self.members} | {str(Path(p).resolve()) for p in opened if p}
        new = [Member(stem(Path(path)), path) for path in found if path not in known]
        kept = self._keeper.autosave.of_files(found)
        for member in new:
            if (saved := kept.get(member.path)) is not None:
                member.take(saved)
        self.members += new
        self.together = True
        self._show_all()
        self.said.emit(
            f"{len(new)} image{'s' * (len(new) != 1)} added: a click opens one; strokes on "
            "any of them train one model."
        )

    def work_together(self, on: bool) -> None:
        """Let strokes on all images train one model from the next Train on, or no longer."""
        self.together = on
        if on and self._session.is_running:
            self.said.emit("Press Stop and Train: then it learns from all images together.")

    def _ask_for_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(self._panel.window(), "Folder of images")
        if folder:
            try:
                self.add_folder(Path(folder))
            except InputError as error:
                self.warned.emit(str(error))

    def open_images(self, without: Image) -> list[tuple[Image, Callable[[], Volume]]]:
        """Return the open images, but for one and for films, and what reads their pixels."""
        return [
            (member.image, member.reading())
            for member in self.members
            if member.image not in (None, without) and not member.is_film
        ]

    def _ask_and_save(self) -> None:
        folder = QFileDialog.getExistingDirectory(self._panel.window(), "Folder for the strokes")
        if folder:
            self.save_strokes(Path(folder))

    def save_strokes(self, folder: Path) -> None:
        """Write the strokes of every image, as ``napari-msseg train --scribbles`` takes them."""
        if self._errand.is_running:
            self.warned.emit("Strokes are being written already: wait a moment.")
            return
        try:
            save = saving_strokes(self.members, folder)
        except InputError as error:
            self.warned.emit(str(error))
            return
        self.said.emit(f"Writing strokes to {folder}…")
        self._errand.begin(
            save,
            lambda n: self.said.emit(f"Strokes on {n} images are in {folder}"),
            lambda error: self.warned.emit(str(error)),
        )

    def teachers(self, image: Image) -> list[Member]:
        """Return the images that are learned from for one of them, itself included."""
        return [
            member
            for member in self.members
            if not member.is_film
            if member.image is image or (self.together and self._means_the_same(member))
        ]

    def _show_all(self) -> None:
        """Show the list as it is now."""
        rows = []
        for member in self.members:
            here = member is self.current
            rows.append(Row(member.name, member.strokes, member.dice, member.uncertainty, here))
        self._panel.show_images(rows, self.together)

    # ------------------------------------------------------------------ going there

    def _choose(self, number: int) -> None:
        self._try(self.members[number])

    def go_to(self, member: Member) -> None:
        """Open an image and have it chosen; one of a folder that was open is closed.

        Raises
        ------
        InputError
            If it cannot be opened.
        """
        if member is self.current:
            return
        before = self.current
        if member.image is None:
            self._open(member)
        self.current = member
        self._recall(member)
        self.shares = self.together and self._means_the_same(member)
        self._share_classes(member)
        self._show(member)
        self.arrived.emit(member)
        if before is not None and before.path and before is not member:
            self._close(before)
        self._session.viewer.reset_view()
        self._show_all()

    def next(self) -> None:
        """Go to the image that it is least sure of, or, where nothing is known, to the next one."""
        others = [m for m in self.members if m is not self.current and not m.visited]
        askable = [m for m in others if m.path or (self.together and not m.is_film)]
        if not others:
            for member in self.members:
                member.visited = member is self.current
            self.said.emit("That was the last image of this round; again: a new one.")
        elif self._session.state is SessionState.PREPARING:
            self.said.emit("Wait until this image is ready, then go on.")
        elif askable and self._session.is_running and not self._session.is_paused:
            step = -(-len(askable) // MOST_RANKED)
            self._asked = askable[::step]
            self.said.emit(f"Looking at {len(self._asked)} images for the least sure one…")
            self._session.rank([m.key for m in self._asked])
        else:
            self._try(others[0])

    def _try(self, member: Member) -> None:
        try:
            self.go_to(member)
        except InputError as error:
            member.visited = True
            self.warned.emit(str(error))

    def _open(self, member: Member) -> None:
        self._is_opening = True  # or its layers would be taken for images of the user's
        try:
            opened = open_file(self._session.viewer, member.path)
        finally:
            self._is_opening = False
        images = [layer for layer in opened if layers.is_image(layer)]
        if not images:
            for layer in opened:
                self._session.viewer.layers.remove(layer)
            raise InputError(f"{member.path} is not an image, but a mask")
        member.image, member.channels = images[0], tuple(images[1:])

    def _show(self, member: Member) -> None:
        """Show the layers over an image, and not those over the others."""
        for other in self.members:
            if other.image is not None and other is not member:
                for layer in self._layers_of(other):
                    layer.visible = False
        for layer in self._layers_of(member):
            if layers.role_of(layer) in ("", "scribbles", "prediction", "locks"):
                layer.visible = True

    def _close(self, member: Member) -> None:
        """Take the layers of a file away; what is painted on it is kept."""
        # strokes first, then the image: with locks that go, nothing more is kept of it
        order = {"scribbles": 0, "": 1}
        there = self._layers_of(member)
        for layer in sorted(there, key=lambda layer: order.get(layers.role_of(layer), 2)):
            if layer in self._session.viewer.layers:
                self._session.viewer.layers.remove(layer)

    def _layers_of(self, member: Member) -> list[Any]:
        image = member.image
        assert image is not None
        return [
            layer
            for layer in self._session.viewer.layers
            if layer is image
            or any(layer is channel for channel in member.channels)
            or layers.lies_over(layer, image)
            or (isinstance(layer, Labels) and self._keeper.owner(layer) is image)
        ]

    # --------------------------------------------------------------------- learning

    def others(self, image: Image) -> list[OtherImage]:
        """Return the other images and what is painted on them, where they count."""
        if not self.together:
            return []
        found = []
        for member in self.members:
            if member.image is image or member.is_film:
                continue
            if member.image is None and member.scribbles is None:
                continue  # what is closed is ranked by its path
            if not self._means_the_same(member):
                self.warned.emit(
                    f"“{member.name}” is not learned from: its classes mean something else"
                )
                continue
            scribbles = self._taught(member)
            found.append(OtherImage(member.key, member.name, member.reading(), scribbles))
        return found

    def _taught(self, member: Member) -> ScribbleSnapshot:
        """Return what an image teaches: what is painted on it, and what is locked."""
        scribbles, image = member.scribbles, member.image
        if scribbles is None:
            assert image is not None
            nothing = np.zeros(layers.spatial_shape(image), np.uint8)
            scribbles = ScribbleSnapshot.from_labels(nothing)
        if image is not None:
            locked = self._session.answers.locks.snapshot(image)
        else:
            locked = None if member.kept is None else member.kept.locked
        return scribbles if locked is None else scribbles.with_locked(locked)

    def _means_the_same(self, member: Member) -> bool:
        """Whether nothing is painted on an image that has the name of another class here."""
        if member.classes is None or member.scribbles is None:
            return True
        there = member.classes.names
        here = {name: k for k, name in self._session.classes.names.items()}
        painted = np.unique(member.scribbles.classes).tolist()
        return all(here.get(there.get(k, ""), k) == k for k in painted)

    def _recall(self, member: Member) -> None:
        """Take what was kept of an image that was just opened for what is painted on it."""
        if member.path and not any(map(layers.is_scribble_layer, self._layers_of(member))):
            saved = self._found(member)
            member.scribbles, member.classes, member.strokes = None, None, 0
            if saved is not None:
                member.take(saved)

    def _share_classes(self, member: Member) -> None:
        """Let an image that is worked on together with others have the class table of now."""
        if not self.shares:
            return
        table = member.classes = self._session.classes
        for layer in self._layers_of(member):
            if layers.is_scribble_layer(layer):
                layer.metadata[layers.CLASSES] = table.to_mapping()

    def kept(self, member: Member) -> SavedSession | None:
        """Return what is painted on an image that was just opened, with the classes of now."""
        saved = self._found(member)
        if saved is None or not self.shares:
            return saved
        return replace(saved, classes=self._session.classes)

    def _found(self, member: Member) -> SavedSession | None:
        """Return what was kept for just what an open image holds."""
        assert member.image is not None
        saved, kept = self._keeper.find(member.image), member.kept
        if saved is None and kept and kept.fingerprint == self._keeper.fingerprint(member.image):
            return kept
        return saved

    def count(self, image: Image | None, snapshot: ScribbleSnapshot, strokes: int) -> None:
        """Hear what is painted on an image now, and how many strokes that are."""
        for member in self.members:
            if image is not None and member.image is image:
                member.scribbles, member.strokes = snapshot, strokes
                member.classes = self._session.classes
                self._show_all()

    def _hear(self, event: Event) -> None:
        if isinstance(event, HeldOutScored):
            for member in self.members:
                if member.image is not None and member.image is self._session.image:
                    member.dice = mean_dice(dice_of(event.confusion))
                    self._show_all()
        elif isinstance(event, ImageRanked):
            self._rank(event)

    def _rank(self, event: ImageRanked) -> None:
        """Take note of an answer; after the last one go to the least sure."""
        asked = [m for m in self._asked if m.key == event.name]
        for member in asked:
            member.uncertainty = math.nan if event.error else event.uncertainty
        if not asked or asked[0] is not self._asked[-1]:
            return
        ranked, self._asked = self._asked, []
        known = [m for m in ranked if not math.isnan(m.uncertainty)]
        if not known:
            self.warned.emit(f"none of them can be looked at: {event.error}")
            self._try(ranked[0])
            return
        best = max(known, key=lambda m: m.uncertainty)
        self._try(best)
        self.said.emit(f"“{best.name}” is the least sure of {len(known)}: paint where it is wrong.")
