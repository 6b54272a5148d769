"""Keeps strokes on the disk as they are painted, one folder an image, and finds them again."""

from __future__ import annotations

import atexit
import os
import shutil
import threading
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from weakref import WeakSet

import platformdirs

from napari_msseg.errors import InputError
from napari_msseg.io.guard import one_line
from napari_msseg.kept_folders import prune
from napari_msseg.saved_session import (
    SavedSession,
    read_session,
    require_fingerprint,
    write_session,
)

VARIABLE = "NAPARI_MSSEG_DATA"
"""Environment variable: the folder for all that is kept between runs."""
STROKES = "strokes.msseg"
DAMAGED = "strokes.damaged.msseg"
MODEL = "model.safetensors"
MAX_SESSIONS = 1000
MAX_BYTES = 10**9
PRUNE_EVERY = 64
"""Writes between two looks at the disk; the first write for an image looks too."""
WAIT_SECONDS = 0.05
CLOSE_SECONDS = 10.0
PATIENCE_SECONDS = 2.0
"""How long `find` waits for another viewer of this process to finish writing."""


def data_folder() -> Path:
    """Return the folder for what is kept between runs; it need not exist yet."""
    given = os.environ.get(VARIABLE)
    return Path(given) if given else platformdirs.user_data_path("napari-msseg", appauthor=False)


class Autosave:
    """Keeps the newest strokes of every image in ``<folder>/<fingerprint>/strokes.msseg``.

    One daemon thread writes; it starts with the first `keep` and ends with `close`, or with
    the interpreter, which lets it finish. Of what waits for an image only the newest is
    written. Several processes may share a folder: a file is replaced as a whole, and whoever
    writes last wins.

    Parameters
    ----------
    folder : Path, optional
        Default: ``sessions`` in `data_folder`.
    on_error : callable, optional
        Is told, in one line, that strokes cannot be written (once until they can again) or
        be read. **Called on the writing thread**, or by `find` on the thread of the caller.
    """

    def __init__(
        self, folder: Path | None = None, on_error: Callable[[str], None] | None = None
    ) -> None:
        self.folder = folder or data_folder() / "sessions"
        self._on_error = on_error
        self._writes = 0
        self._changed = threading.Condition()
        # all below is read and written under the condition; a session None means: forget it
        self._thread: threading.Thread | None = None
        self._waiting: dict[str, SavedSession | None] = {}
        self._writing: dict[str, SavedSession | None] = {}
        self._failed: dict[str, SavedSession | None] = {}
        self._asked: dict[str, int] = {}
        self._settled: dict[str, int] = {}
        self._closing = False
        _OPEN.add(self)

    def keep(self, saved: SavedSession, wait_seconds: float = WAIT_SECONDS) -> bool:
        """Hand over the strokes of an image and wait a moment for them to be on the disk.

        Never raises because of the disk, and never waits longer than asked: a disk that is slow
        or full cannot stop the hand that paints.

        Returns
        -------
        bool
            Whether they are on the disk now: then not even a killed process loses them.
        """
        return self._hand_over(saved.fingerprint, saved, wait_seconds)

    def find(self, fingerprint: str) -> SavedSession | None:
        """Return what was kept for an image, without a model; None where there is nothing.

        What another `Autosave` of this process has not written yet is waited for. A file that
        cannot be read is moved aside, so that nothing takes its place, and reported.
        """
        with self._changed:
            for ahead in (self._waiting, self._writing, self._failed):
                if fingerprint in ahead:
                    saved = ahead[fingerprint]
                    return None if saved is None else replace(saved, model=None)
        path = self._home(fingerprint) / STROKES
        for other in list(_OPEN):
            if other is not self and other.folder == self.folder:
                other.settle(fingerprint)
        if not os.path.exists(path):  # Path.exists raises where a folder is closed to us
            return None
        try:
            return replace(_read(path, fingerprint), model=None)
        except InputError as error:
            self._report(f"kept strokes cannot be read: {error}{_put_aside(path)}")
            return None

    def settle(self, fingerprint: str, wait_seconds: float = PATIENCE_SECONDS) -> bool:
        """Wait until the strokes of an image are on the disk, or cannot be written.

        Returns
        -------
        bool
            Whether nothing of them waits any more.
        """
        with self._changed:
            return self._changed.wait_for(
                lambda: fingerprint not in self._waiting and fingerprint not in self._writing,
                wait_seconds,
            )

    def of_files(self, paths: Collection[str]) -> dict[str, SavedSession]:
        """Return what was kept last for images that were read from these files.

        Without models. The files may hold something else by now: `find` knows images by what they
        hold. What cannot be read is left out.
        """
        found: dict[str, SavedSession] = {}
        with suppress(OSError):
            for home in self.folder.iterdir():
                with suppress(InputError):
                    saved = self.find(home.name)
                    path = "" if saved is None else saved.image_path
                    if saved is None or path not in paths:
                        continue
                    if path not in found or found[path].saved_at < saved.saved_at:
                        found[path] = saved
        return found

    def model_path(self, fingerprint: str) -> Path:
        """Return where the model of an image belongs; its folder is made if that is possible."""
        home = self._home(fingerprint)
        with suppress(OSError):  # who writes the model will say what is wrong
            home.mkdir(parents=True, exist_ok=True)
        return home / MODEL

    def forget(self, fingerprint: str, wait_seconds: float = WAIT_SECONDS) -> None:
        """Delete all that was kept for an image."""
        require_fingerprint(fingerprint)
        self._hand_over(fingerprint, None, wait_seconds)

    def set_aside(self, fingerprint: str) -> None:
        """Make room for other strokes of an image: those kept so far stay beside them."""
        home = self._home(fingerprint)
        for name in (STROKES, MODEL):
            if os.path.exists(home / name):
                with suppress(OSError):
                    os.replace(home / name, _free(home / _aside(name)))

    def older(self, fingerprint: str) -> list[SavedSession]:
        """Return what was set aside for an image, the newest first; without models.

        What cannot be read, has no strokes, or has those that were kept last, is left out.
        """
        last = self.find(fingerprint)
        found = []
        with suppress(OSError):
            for path in self._home(fingerprint).glob(_aside(STROKES, "*")):
                with suppress(InputError):
                    found.append(replace(_read(path, fingerprint), model=None))
        others = [
            saved
            for saved in found
            if saved.scribbles.indices.size
            and not (last is not None and saved.scribbles.same_strokes(last.scribbles))
        ]
        return sorted(others, key=lambda saved: saved.saved_at, reverse=True)

    def close(self) -> None:
        """Write what waits, once more what could not be written, and end the thread.

        May be called more than once. A later `keep` starts the thread again.
        """
        with self._changed:
            thread = self._thread
            if thread is None:
                return
            self._waiting = {**self._failed, **self._waiting}
            self._closing = True
            self._changed.notify_all()
        thread.join(CLOSE_SECONDS)
        atexit.unregister(self.close)

    def _home(self, fingerprint: str) -> Path:
        require_fingerprint(fingerprint)
        return self.folder / fingerprint

    # ------------------------------------------------------------------- writing

    def _hand_over(self, key: str, saved: SavedSession | None, wait_seconds: float) -> bool:
        with self._changed:
            number = self._asked[key] = self._asked.get(key, 0) + 1
            self._waiting[key] = saved
            self._start()
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._settled.get(key, 0) >= number, wait_seconds)
            return self._settled.get(key, 0) >= number and key not in self._failed

    def _start(self) -> None:
        # a thread that is not alive was left behind by a fork
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(
                target=self._run, name="napari-msseg-autosave", daemon=True
            )
            self._thread.start()
            atexit.register(self.close)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    self._thread, self._closing = None, False
                    return
                key = next(iter(self._waiting))
                saved = self._writing[key] = self._waiting.pop(key)
                number, known = self._asked[key], key in self._settled
            problem = self._attempt(key, saved, look_around=not known)
            with self._changed:
                del self._writing[key]
                again = key in self._failed
                self._failed.pop(key, None)
                if problem:
                    self._failed[key] = saved
                self._settled[key] = number
                self._changed.notify_all()
            if problem and not again:
                self._report(f"what is painted cannot be kept on the disk: {problem}")

    def _attempt(self, key: str, saved: SavedSession | None, look_around: bool) -> str:
        """Write or forget; return what went wrong, or nothing."""
        home = self.folder / key
        try:
            if saved is None:
                shutil.rmtree(home, ignore_errors=True)
                return ""
            home.mkdir(parents=True, exist_ok=True)
            write_session(home / STROKES, replace(saved, model=None))
            self._writes += 1
            if look_around or self._writes % PRUNE_EVERY == 0:
                with suppress(OSError):  # the strokes are written all the same
                    prune(self.folder, home, MAX_SESSIONS, MAX_BYTES)
        except InputError as error:
            return str(error)
        except OSError as error:
            return f"{home}: {error.strerror or one_line(error)}"
        except Exception as error:  # noqa: BLE001 - a defect must not end the keeping
            return f"{home}: {one_line(error)}"
        return ""

    def _report(self, message: str) -> None:
        if self._on_error is not None:
            with suppress(Exception):  # a window that is gone by now must not end the keeping
                self._on_error(message)


_OPEN: WeakSet[Autosave] = WeakSet()
"""All of this process: two viewers may keep strokes of the same image."""


def _aside(name: str, number: str = "") -> str:
    """Return the name that a file of strokes, or of a model, is set aside under."""
    return name.replace(".", f".before{number}.", 1)


def _read(path: Path, fingerprint: str) -> SavedSession:
    saved = read_session(path)
    if saved.fingerprint != fingerprint:
        raise InputError(f"{path}: belongs to another image")
    return saved


def _put_aside(path: Path) -> str:
    """Rename what cannot be read; return what to tell of it."""
    aside = _free(path.with_name(DAMAGED))
    try:
        path.rename(aside)
    except OSError:
        return ""
    return f"; it is {aside.name} now"


def _free(path: Path) -> Path:
    """Return a name like this that nothing has yet: older things are worth keeping too."""
    stem, _, suffix = path.name.rpartition(".")
    number, free = 1, path
    while os.path.exists(free):
        number += 1
        free = path.with_name(f"{stem}-{number}.{suffix}")
    return free
