"""What the user does with classes: choose, add, remove, rename, recolour, move."""

from __future__ import annotations

from collections.abc import Callable
from weakref import ref

from napari.layers import Image, Labels
from psygnal import Signal

from napari_msseg._napari import layers
from napari_msseg._napari.class_panel import ClassPanel
from napari_msseg._napari.live import LiveSession
from napari_msseg.classes import BACKGROUND, ClassTable
from napari_msseg.errors import InputError
from napari_msseg.pieces import count_pieces
from napari_msseg.scribbles import ScribbleSnapshot


class ClassIntents:
    """Between the list of classes, the class table of the session, and the brush.

    Parameters
    ----------
    session : LiveSession
    panel : ClassPanel
    scribbles, image : callable
        Return the scribble layer and the image that are chosen, or None.
    """

    warned = Signal(str)
    changed = Signal()  # the table, by the user
    said = Signal(str)

    def __init__(
        self,
        session: LiveSession,
        panel: ClassPanel,
        scribbles: Callable[[], Labels | None],
        image: Callable[[], Image | None],
    ) -> None:
        self._session = session
        self._panel = panel
        self._scribbles = scribbles
        self._image = image
        self._current, self._before = panel.current, 1
        panel.chosen.connect(self.choose)
        panel.added.connect(self.add)
        self.n_painted = 0
        """Classes that were painted when strokes were counted last."""
        panel.removed.connect(self.remove)
        panel.renamed.connect(self.rename)
        panel.coloured.connect(self.recolour)
        panel.moved.connect(self.move)
        self._gone: tuple[ref[Labels], int] | None = None  # strokes removed last, and from where
        session.classes_changed.connect(self._show)
        panel.show_classes(session.classes)

    def _show(self, classes: ClassTable) -> None:
        """Show a table; what was said of a class is no longer so when it comes back."""
        self._panel.show_classes(classes)
        if self._gone is None:
            return
        layer, class_ = self._gone
        if layer() is not self._session.chosen:
            self._gone = None
        elif class_ in classes:
            self._gone = None
            self.said.emit(f"“{classes[class_].name}” is back, with its strokes.")

    # ------------------------------------------------------------------ the brush

    def choose(self, class_: int) -> None:
        """Take the brush of a class in hand."""
        if class_ != self._current:
            self._before, self._current = self._current, class_
        self._panel.check(class_)
        scribbles = self._scribbles()
        if scribbles is not None:
            if scribbles in self._session.viewer.layers:
                self._session.viewer.layers.selection.active = scribbles
            scribbles.selected_label = class_ + 1
            scribbles.mode = "paint"

    def choose_place(self, place: int) -> None:
        """Take the brush of the class at a place in the list, where there is one."""
        if place < len(self._session.classes):
            self.choose(self._session.classes.classes[place].class_)

    def toggle(self) -> None:
        """Go back to the class before, and forth again."""
        if self._before in self._session.classes:
            self.choose(self._before)

    def follow(self, layer: Labels) -> None:
        """Show the class of the brush, whoever has changed it."""
        class_ = int(layer.selected_label) - 1
        if layer is self._scribbles() and class_ in self._session.classes:
            self._panel.check(class_)
            if class_ != self._current:
                self._before, self._current = self._current, class_

    # ------------------------------------------------------------------ the table

    def add(self) -> None:
        """Add a class and take its brush in hand."""
        old = self._session.classes
        if self._change(ClassTable.added):
            self.choose(next(c.class_ for c in self._session.classes if c.class_ not in old))

    def remove(self, class_: int) -> None:
        """Remove a class and its strokes; undo brings both back."""
        try:
            rest = self._session.classes.without(class_)
            gone = self._session.classes[class_].name
        except InputError as error:
            self.warned.emit(str(error))
            return
        scribbles = self._scribbles()  # other layers have tables of their own
        # first: a class that is painted comes back
        painted = scribbles is not None and layers.erase_class(scribbles, class_)
        self._session.change_classes(rest)
        self._session.forget_class(class_)
        # of an image that is not trained on just now, too: a class that is locked comes back
        self._session.answers.locks.forget_class(self._image(), class_)
        self.changed.emit()
        self.choose(BACKGROUND)
        if scribbles is None or not painted:
            self.said.emit(f"“{gone}” is removed.")
            return
        self._gone = ref(scribbles), class_
        self.said.emit(f"“{gone}” and its strokes are removed: Ctrl-Z brings them back.")

    def rename(self, class_: int, name: str) -> None:
        """Give a class another name."""
        self._change(lambda table: table.renamed(class_, name))

    def recolour(self, class_: int, colour: str) -> None:
        """Give a class another colour, in strokes, prediction and maps."""
        self._change(lambda table: table.coloured(class_, colour))

    def move(self, class_: int, place: int) -> None:
        """Put a class at another place in the list; no pixel changes."""
        self._change(lambda table: table.moved(class_, place))

    def _change(self, change: Callable[[ClassTable], ClassTable]) -> bool:
        try:
            self._session.change_classes(change(self._session.classes))
        except InputError as error:
            self.warned.emit(str(error))
            self._panel.show_classes(self._session.classes)
            return False
        self.changed.emit()
        return True

    # ------------------------------------------------------------------- counting

    def count(self, snapshot: ScribbleSnapshot | None) -> int:
        """Show how much of each class is painted; return the number of strokes."""
        counts: dict[int, tuple[int, int]] = {}
        if snapshot is not None:
            pieces = count_pieces(snapshot)
            counts = {k: (pieces[k], n) for k, n in enumerate(snapshot.counts) if n}
        self._panel.show_counts(counts)
        self.n_painted = len(counts)
        return sum(pieces for pieces, _ in counts.values())
