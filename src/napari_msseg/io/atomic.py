"""Write a file entirely or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from napari_msseg.errors import InputError
from napari_msseg.io.guard import one_line


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
        reason = error.strerror or one_line(error)
        raise InputError(f"{target}: cannot be written ({reason})") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def check_target(target: Path) -> None:
    """Raise `InputError` unless a file can be put at `target`."""
    folder = Path(os.path.realpath(target)).parent
    if target.is_dir():
        raise InputError(f"{target}: is a folder; name a file in it")
    if not folder.is_dir():
        raise InputError(f"{target}: the folder {folder} does not exist; make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{target}: no permission to write into the folder {folder}")


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
