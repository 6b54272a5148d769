"""Keys of the brush: bound to our layers, so that they mean nothing elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from napari.layers import Labels
from napari.layers.base import Layer

N_KEYS = 9
DIGITS = tuple(str(place + 1) for place in range(N_KEYS))
TOGGLE_KEY, NEXT_KEY, LOCK_KEY = "X", "N", "L"
DOCK_KEYS = frozenset((*DIGITS, TOGGLE_KEY, NEXT_KEY, LOCK_KEY))
"""Those that mean in the dock what they mean on the canvas."""
KEYS = (
    ("1 … 9", "brush of the first … ninth class"),
    (TOGGLE_KEY, "back to the class before; again: forth"),
    ("E (hold)", "eraser while the key is held"),
    ("[  ]", "smaller, larger brush"),
    ("Ctrl-Z, Ctrl-Shift-Z", "undo, redo a stroke"),
    ("Space (hold)", "move the image while the key is held"),
    (NEXT_KEY, "go to where a stroke would help most"),
    (LOCK_KEY, "lock what is under the mouse; again: unlock it"),
)
"""What the help lists; the brush size, undo and Space are napari's own."""


class Keys:
    """Binds the keys to our layers and to a viewer, and takes them back.

    Parameters
    ----------
    viewer : ViewerModel
    choose_place : callable
        Is given the place in the class table, from 0.
    toggle : callable
        Go back to the class before.
    next_spot : callable
    lock : callable
        Lock what is under the mouse, or unlock it.
    """

    def __init__(
        self,
        viewer: Any,
        choose_place: Callable[[int], None],
        toggle: Callable[[], None],
        next_spot: Callable[[], None],
        lock: Callable[[], None],
    ) -> None:
        self._viewer = viewer
        self._actions: dict[str, Callable[[], None]] = {
            **{key: partial(choose_place, place) for place, key in enumerate(DIGITS)},
            TOGGLE_KEY: toggle,
            NEXT_KEY: next_spot,
            LOCK_KEY: lock,
        }
        self._layers: WeakKeyDictionary[Layer, dict[str, Any]] = WeakKeyDictionary()
        self._next = lambda _: next_spot()
        viewer.bind_key(NEXT_KEY, self._next, overwrite=True)

    def bind(self, layer: Any, paints: bool = True) -> bool:
        """Give a layer of ours its keys; return whether it had none yet.

        One that nobody paints on takes the user back to the scribbles, and has no eraser.
        """
        if layer in self._layers:
            return False
        ours: dict[str, Any] = {
            key: lambda _, action=action: action()
            for key, action in self._actions.items()
            if key != NEXT_KEY  # of the viewer
        }
        if paints:
            ours["E"] = _erase_while_held()
        for key, action in ours.items():
            layer.bind_key(key, action, overwrite=True)
        self._layers[layer] = ours
        return True

    def press(self, key: str) -> bool:
        """Do what a key means on the canvas; return whether it means something."""
        action = self._actions.get(key.upper())
        if action is not None:
            action()
        return action is not None

    def release(self) -> None:
        """Take our keys back, but not those of another dock: napari's own mean what they meant."""
        _unbind(self._viewer, {NEXT_KEY: self._next})
        for layer, ours in list(self._layers.items()):
            _unbind(layer, ours)
        self._layers.clear()


def _unbind(owner: Any, ours: dict[str, Any]) -> None:
    for key, action in ours.items():
        if any(bound is action for bound in owner.keymap.values()):
            owner.bind_key(key, None)


def _erase_while_held() -> Callable[[Labels], Iterator[None]]:
    """Return what the key does: one for each layer, to be told from that of another dock."""

    def erase(layer: Labels) -> Iterator[None]:
        before = layer.mode
        layer.mode = "erase"
        yield
        layer.mode = before if before != "erase" else "paint"

    return erase
