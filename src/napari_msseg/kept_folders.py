"""Keeps the folders of kept sessions within bounds; the oldest go first."""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from napari_msseg.errors import InputError
from napari_msseg.saved_session import SUFFIX, require_fingerprint

STALE_SECONDS = 3600.0
"""A temporary file that is older was left by a process that was killed as it wrote."""


@dataclass(frozen=True)
class _Kept:
    folder: Path
    changed: float
    size: int
    holds_strokes: bool


def prune(folder: Path, latest: Path, max_sessions: int, max_bytes: int) -> None:
    """Delete folders of sessions until the bounds hold: those without strokes, then the oldest.

    Only folders that are named by a fingerprint are looked at. Their age is that of the newest
    thing in them. Other processes may write and delete here at the same time.

    Parameters
    ----------
    folder : Path
        Holds a folder a session.
    latest : Path
        The one that was just written; it stays.
    max_sessions, max_bytes : int
        The bounds, `latest` included.

    Raises
    ------
    OSError
        If the folder cannot be listed.
    """
    kept = sorted(map(_look_at, _folders(folder)), key=lambda one: (one.holds_strokes, one.changed))
    count, total = len(kept), sum(one.size for one in kept)
    for one in kept:
        if count <= max_sessions and total <= max_bytes:
            return
        if one.folder != latest:
            shutil.rmtree(one.folder, ignore_errors=True)
            count, total = count - 1, total - one.size


def _folders(folder: Path) -> list[Path]:
    found = []
    for path in folder.iterdir():
        with suppress(InputError):
            require_fingerprint(path.name)
            found.append(path)
    return [path for path in found if path.is_dir() and not path.is_symlink()]


def _look_at(folder: Path) -> _Kept:
    """Return age and size of a session, after its stale temporary files were deleted."""
    changed, size, strokes = 0.0, 0, False
    with suppress(OSError):
        changed = folder.stat().st_mtime
        for path in folder.iterdir():
            with suppress(OSError):  # it may be gone by now
                status = path.stat()
                if path.name.startswith(".tmp-") and status.st_mtime < time.time() - STALE_SECONDS:
                    path.unlink()
                    continue
                changed = max(changed, status.st_mtime)
                size += status.st_size
                strokes = strokes or path.suffix == SUFFIX
    return _Kept(folder, changed, size, strokes)
