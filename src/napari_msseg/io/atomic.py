"""Write a file entirely or not at all."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from napari_msseg.errors import InputError
from napari_msseg.io.guard import reason_of

WRITABLE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; move it there if the block succeeds.

    The temporary name ends in the suffixes of `target`, so that libraries which choose a
    format by name choose the same one. The file is flushed to the disk before it takes
    the place of an older one; whatever goes wrong, the older one stays as it was and the
    temporary file is gone. A link is followed: what it points to is replaced.

    Parameters
    ----------
    target : Path
        The file to write. Its folder must exist.

    Yields
    ------
    Path
        The file to write instead; it does not exist yet.

    Raises
    ------
    InputError
        If the target is a folder, its folder is missing or not writable, or the system
        refuses to write (a full disk, a quota). Exceptions that are not `OSError` pass.
    """
    check_target(target)
    final = Path(os.path.realpath(target))
    temporary = final.with_name(f".tmp-{secrets.token_hex(6)}{''.join(final.suffixes[-2:])}")
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, final)
        _flush_folder(final.parent)
    except OSError as error:
        reason = reason_of(error)
        if error.strerror is None:  # numpy counts what was written, and does not say why
            reason = f"{reason}: is the disk full?"
        raise InputError(f"{target}: cannot be written ({reason})") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def check_target(target: Path) -> None:
    """Raise `InputError` unless a file can be put at `target`.

    What stands there must be an ordinary file, since it is going to be replaced, and not one
    that was protected against writing: the folder alone decides whether it can be replaced.
    """
    mode = _mode(target)
    if mode is not None and stat.S_ISDIR(mode):
        raise InputError(f"{target}: is a folder; name a file in it")
    if mode is not None and not stat.S_ISREG(mode):
        raise InputError(f"{target}: is not an ordinary file; name another")
    if mode is not None and not mode & WRITABLE:
        raise InputError(f"{target}: is protected against writing; name another file")
    folder = Path(os.path.realpath(target)).parent
    if not folder.is_dir():
        raise InputError(f"{target}: the folder {folder} does not exist; make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{target}: no permission to write into the folder {folder}")


def _mode(target: Path) -> int | None:
    """Return what stands at `target` (behind links), and who may do what; None for nothing."""
    try:
        return target.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:  # a name too long, a loop of links, a zero byte
        raise InputError(f"{target}: cannot be written ({reason_of(error)})") from None


def _flush(path: Path) -> None:
    # "r+b", because Windows flushes only what is open for writing
    with open(path, "r+b") as file:
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    # makes the new name survive a power cut; some systems cannot open a folder
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
