"""Keys of the brush: bound to our scribble layers, so that they mean nothing elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakSet

from napari.layers import Labels

N_KEYS = 9
NEXT_KEY = "N"
KEYS = (
    ("1 … 9", "brush of the first … ninth class"),
    ("X", "back to the class before; again: forth"),
    ("E (hold)", "eraser while the key is held"),
    ("[  ]", "smaller, larger brush"),
    ("Ctrl-Z, Ctrl-Shift-Z", "undo, redo a stroke"),
    ("Space (hold)", "move the image while the key is held"),
    (NEXT_KEY, "go to where a stroke would help most"),
)
"""What the help lists; the brush size, undo and Space are napari's own."""


class Keys:
    """Binds the keys to scribble layers and to a viewer, and takes them back.

    Parameters
    ----------
    viewer : ViewerModel
    choose_place : callable
        Is given the place in the class table, from 0.
    toggle : callable
        Go back to the class before.
    next_spot : callable
    """

    def __init__(
        self,
        viewer: Any,
        choose_place: Callable[[int], None],
        toggle: Callable[[], None],
        next_spot: Callable[[], None],
    ) -> None:
        self._viewer = viewer
        self._choose_place = choose_place
        self._toggle = toggle
        self._bound: WeakSet[Labels] = WeakSet()
        viewer.bind_key(NEXT_KEY, lambda _: next_spot(), overwrite=True)

    def bind(self, layer: Labels) -> bool:
        """Give a scribble layer its keys; return whether it had none yet."""
        if layer in self._bound:
            return False
        self._bound.add(layer)
        for place in range(N_KEYS):
            layer.bind_key(
                str(place + 1), lambda _, place=place: self._choose_place(place), overwrite=True
            )
        layer.bind_key("X", lambda _: self._toggle(), overwrite=True)
        layer.bind_key("E", _erase_while_held, overwrite=True)
        return True

    def release(self) -> None:
        """Take all keys back: napari's own mean what they meant."""
        self._viewer.bind_key(NEXT_KEY, None)
        for layer in list(self._bound):
            for key in (*map(str, range(1, N_KEYS + 1)), "X", "E"):
                layer.bind_key(key, None)
        self._bound.clear()


def _erase_while_held(layer: Labels) -> Iterator[None]:
    before = layer.mode
    layer.mode = "erase"
    yield
    layer.mode = before if before != "erase" else "paint"
