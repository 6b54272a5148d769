"""Objects in the dock: wires their panel, layer and table together."""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from weakref import ref

import numpy as np
import numpy.typing as npt
from psygnal import Signal

from napari_msseg._napari import layers
from napari_msseg._napari.lifetimes import is_alive
from napari_msseg._napari.live import LiveSession
from napari_msseg._napari.object_layers import ObjectLayers
from napari_msseg._napari.object_panel import ObjectPanel
from napari_msseg._napari.object_table import ObjectTable
from napari_msseg.classes import ClassTable
from napari_msseg.objects.table import Measurements

ACROSS = 200
"""Pixels that are seen around an object."""


class ObjectViews:
    """Shows objects as a layer, a count and a table.

    Parameters
    ----------
    session : LiveSession
    panel : ObjectPanel
    """

    said = Signal(str)
    warned = Signal(str)
    save_wanted = Signal(Measurements, str)  # and the name of its image

    def __init__(self, session: LiveSession, panel: ObjectPanel) -> None:
        self._session = session
        self._panel = panel
        self.layers = ObjectLayers(session)
        self.table: ObjectTable | None = None
        self._dock: Any = None
        self.found: Measurements | None = None
        self._selected = 0
        self._name = ""
        self._image: Any = lambda: None  # a weak reference
        self._frame: layers.Frame = ()
        session.state_changed.connect(self._follow)
        session.classes_changed.connect(self._rename)
        panel.toggled_objects.connect(self._toggle)
        panel.changed.connect(self.layers.configure)
        panel.table_wanted.connect(self.show_table)
        panel.save_wanted.connect(self._save)
        self.layers.found.connect(self._show)
        self.layers.failed.connect(self.warned.emit)
        self.layers.gone.connect(self._lose)
        self.layers.picked.connect(self._select)

    def close(self) -> None:
        """End the process, close the table. Idempotent."""
        self.layers.close()
        table, self.table = self.table, None
        if table is not None:
            # of a window that is closing itself nothing is left to be removed from
            with suppress(AttributeError, LookupError, RuntimeError):
                if self._dock is not None:
                    self._session.viewer.window.remove_dock_widget(self._dock)
                table.deleteLater()
        self._dock = None

    def show_table(self) -> None:
        """Open the table below the canvas, or bring it to the front."""
        if self.table is not None and not is_alive(self.table):
            self.table = self._dock = None  # its dock was closed with its ×
        if self.table is None:
            self.table = ObjectTable()
            self.table.chosen.connect(self._go_to)
            window = getattr(self._session.viewer, "window", None)
            if window is not None:
                self._dock = window.add_dock_widget(self.table, name="Objects", area="bottom")
            if self.found is not None:
                self.table.show_objects(self.found)
        if self._dock is not None:
            self._dock.setVisible(True)
        elif getattr(self._session.viewer, "window", None) is None:
            self.table.show()

    def _toggle(self, on: bool) -> None:
        if on and self._session.prediction is None:
            self.said.emit("Press Train: then there are objects to count.")
        self.layers.want(on)
        self._panel.show_count(None if not on or self.found is None else len(self.found))
        if on and self.found is None and self._session.prediction is not None:
            self._panel.show_looking()

    def _show(self, table: Measurements) -> None:
        image = self._session.image
        self.found, self._name = table, "" if image is None else image.name
        if self._selected not in table.columns["object"]:
            self._selected = 0
        self._panel.show_count(len(table))
        self._panel.show_unit(table.unit, 3 if "volume" in table.columns else 2)
        if self.table is not None and is_alive(self.table):
            self.table.show_objects(table)

    def _rename(self, classes: ClassTable) -> None:
        """Show classes under the names that they have now."""
        self._panel.show_classes(classes)
        if self.found is None:
            return
        renamed = self.found.with_class_names(classes.names)
        if renamed.columns["class_name"].tolist() != self.found.columns["class_name"].tolist():
            self._show(renamed)

    def _follow(self, *_: Any) -> None:
        """Let go of the objects of another image, or of another frame."""
        image, frame = self._session.image, self._session.frame
        if image is not self._image() or frame != self._frame:
            self._image = (lambda: None) if image is None else ref(image)
            self._frame = frame
            self.found, self._selected = None, 0
            self._panel.show_count(None)

    def _lose(self) -> None:
        """Forget objects whose layer was removed: what is saved must be what is drawn."""
        self.found, self._selected = None, 0
        self._panel.untick()

    def _select(self, number: int) -> None:
        self._selected = number
        self.show_table()
        if self.table is not None:
            self.table.select(number)

    def _go_to(self, number: int, centroid: tuple[float, ...]) -> None:
        """Put an object into the middle of the view and into the hand."""
        session, layer = self._session, self.layers.layer
        if session.image is None or layer is None:
            return
        if self.found is None:  # rows of another frame, or of a volume that is a film now
            self.said.emit("Those objects are of before: the table follows with the next answer.")
            return
        spacing, _ = layers.spacing_of(session.image, session.frame)
        self._selected = number
        pixel = (*session.frame, *(np.array(centroid) / spacing))
        layers.look_at(session.viewer, session.image, pixel, ACROSS)
        layer.selected_label = number
        self.said.emit(f"Object {number} is in the middle of the view.")

    def chosen(self) -> tuple[npt.NDArray[np.bool_], int] | None:
        """Return where the chosen object is in the frame, and its class; None where none is."""
        layer, found = self.layers.layer, self.found
        if layer is None or found is None or not self._selected:
            return None
        row = np.flatnonzero(found.columns["object"] == self._selected)
        where: npt.NDArray[np.bool_] = layer.data[self._session.frame] == self._selected
        if not len(row) or not where.any():
            return None
        class_ = int(found.columns["class"][row[0]])
        return (where, class_) if class_ in self._session.classes else None

    def _save(self) -> None:
        if self.found is not None:
            self.save_wanted.emit(self.found, self._name)
