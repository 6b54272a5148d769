"""How a running session is spoken to: latest-wins scribbles, two switches, and requests."""

from __future__ import annotations

from threading import Condition

from napari_msseg.commands import Request
from napari_msseg.scribbles import ScribbleSnapshot


class Mailbox:
    """Thread-safe box between whoever paints and whoever trains.

    New scribbles replace those that nobody took yet, and so does a request another of its kind.
    `stop` cannot be taken back.
    """

    def __init__(self) -> None:
        self._changed = Condition()
        self._scribbles: ScribbleSnapshot | None = None
        self._requests: dict[tuple[type[Request], str], Request] = {}
        self._paused = False
        self._stopped = False

    @property
    def paused(self) -> bool:
        """Whether training should pause."""
        return self._paused

    @property
    def stopped(self) -> bool:
        """Whether the session should end."""
        return self._stopped

    @property
    def has_scribbles(self) -> bool:
        """Whether there are scribbles to take."""
        return self._scribbles is not None

    @property
    def has_mail(self) -> bool:
        """Whether there are scribbles or requests to take, or an end."""
        return self._scribbles is not None or bool(self._requests) or self._stopped

    def put(self, scribbles: ScribbleSnapshot) -> None:
        """Leave new scribbles, in place of older ones that were not taken."""
        with self._changed:
            self._scribbles = scribbles
            self._changed.notify_all()

    def ask(self, request: Request) -> None:
        """Leave a request."""
        with self._changed:
            # two model files are two wishes
            self._requests[type(request), getattr(request, "path", "")] = request
            self._changed.notify_all()

    def set_paused(self, paused: bool) -> None:
        """Ask for a pause, or for its end."""
        with self._changed:
            self._paused = paused
            self._changed.notify_all()

    def stop(self) -> None:
        """Ask for the end."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def take(self) -> ScribbleSnapshot | None:
        """Take the newest scribbles, or None where there are none."""
        with self._changed:
            scribbles, self._scribbles = self._scribbles, None
            return scribbles

    def take_requests(self) -> list[Request]:
        """Take all requests."""
        with self._changed:
            requests, self._requests = list(self._requests.values()), {}
            return requests

    def wait(self, paused: bool) -> None:
        """Block until there is something to take, an end, or the pause is no longer `paused`."""
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._scribbles is not None
                    or bool(self._requests)
                    or self._stopped
                    or self._paused != paused
                )
            )
