"""What ends with a dock, and what must not keep one alive: napari lets go of it without a word."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any


class End:
    """Ends what outlives a dock, in order, and whatever goes wrong with one of it. Idempotent."""

    def __init__(self, *closing: Callable[[], object]) -> None:
        self._stack = ExitStack()
        for close in reversed(closing):
            self._stack.callback(close)

    def __call__(self) -> None:
        self._stack.close()


def is_alive(widget: Any) -> bool:
    """Whether Qt has not deleted a widget under us."""
    try:
        widget.objectName()
    except RuntimeError:
        return False
    return True


def weak(method: Any, *arguments: Any) -> Any:
    """Return a call of a method that does not keep its owner alive."""
    reference = weakref.WeakMethod(method)

    def call() -> None:
        alive = reference()
        if alive is not None:
            alive(*arguments)

    return call


class Disconnect:
    """Takes callbacks back from the layer list when the widget is gone; does not hold it."""

    def __init__(self, events: Any, *callbacks: Any) -> None:
        self._events = events
        self._callbacks = [weakref.WeakMethod(callback) for callback in callbacks]

    def __call__(self) -> None:
        for reference in self._callbacks:
            callback = reference()
            for event in (self._events.inserted, self._events.removed, self._events.reordered):
                if callback is not None:
                    event.disconnect(callback)
