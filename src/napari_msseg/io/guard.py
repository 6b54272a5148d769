"""The boundary to the file libraries: what they raise and print becomes one line of ours."""

from __future__ import annotations

import logging
import math
import stat
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from napari_msseg.errors import InputError, InputWarning
from napari_msseg.io.memory import available_memory

_LISTENER: ContextVar[Callable[[str], object] | None] = ContextVar("listener", default=None)
LIBRARY_LOGGERS = ("tifffile", "nibabel.global")


def one_line(error: BaseException) -> str:
    """Return the message of an exception without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__


def warn(path: Path, text: str) -> None:
    """Tell the user something about a file that is used all the same, as an `InputWarning`."""
    listener, message = _LISTENER.get(), f"{path}: {text}"
    if listener is None:
        warnings.warn(message, InputWarning, stacklevel=2)
    else:
        listener(message)


@contextmanager
def told_to(listener: Callable[[str], object]) -> Iterator[None]:
    """Let somebody hear what would be an `InputWarning` of this thread.

    Of this thread alone, which `warnings.catch_warnings` is not.
    """
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


@contextmanager
def between_programs() -> Iterator[None]:
    """Write what only we read again: nobody wants to hear what its format cannot hold."""
    with told_to(lambda _: None):
        yield


def require_file(path: Path) -> None:
    """Raise `InputError` unless `path` is a file that can be read, with something in it."""
    try:
        mode, size = path.stat().st_mode, path.stat().st_size
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:  # no permission, a name too long, a loop of links
        raise InputError(f"{path}: cannot be read ({reason_of(error)})") from None
    if stat.S_ISDIR(mode):
        raise InputError(f"{path}: is a folder, not a file")
    if not stat.S_ISREG(mode):
        raise InputError(f"{path}: is not an ordinary file")
    if size == 0:
        raise InputError(f"{path}: the file is empty")


def reason_of(error: BaseException) -> str:
    """Return why something failed, without the name of the file that the system repeats."""
    return (error.strerror if isinstance(error, OSError) else None) or one_line(error)


def require_memory(path: Path, shape: Sequence[int], itemsize: int) -> None:
    """Compare what a header announces with the memory there is, before anything is loaded.

    A file of 390 kB can announce 400 MB, and one of 352 bytes 32767³ voxels.

    Raises
    ------
    InputError
        If the array is empty or does not fit.
    """
    size = " x ".join(str(n) for n in shape)
    if min(shape, default=1) < 1:
        raise InputError(f"{path}: holds no pixels (shape {size})")
    needed, available = math.prod(shape) * itemsize, available_memory()
    if available is not None and needed > available:
        raise InputError(
            f"{path}: {size} pixels need {needed / 2**30:.1f} GiB of memory and "
            f"{available / 2**30:.1f} GiB are free; crop the image or use a larger machine"
        )


def memory_for(n_bytes: int) -> bool:
    """Whether so many bytes fit into the memory, as far as that is known."""
    available = available_memory()
    return available is None or n_bytes <= available


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put the name of the file before the message of an `InputError` that lacks it."""
    try:
        yield
    except InputError as error:
        message = one_line(error)
        if message.startswith(str(path)):
            raise
        raise InputError(f"{path}: {message}") from error


@contextmanager
def reading(path: Path, kind: str) -> Iterator[list[str]]:
    """Turn every exception of a file library into one `InputError` that names the file.

    The readers parse bytes of unknown origin and raise nearly anything (struct.error,
    zlib.error, KeyError, …), so this is the one place that catches `Exception`. Their
    warnings and log lines are kept off the screen.

    Parameters
    ----------
    path : Path
        The file.
    kind : str
        What it should be, for the message: ``"a TIFF image"``.

    Yields
    ------
    list of str
        Fills with the lines that the libraries log: some report damage nowhere else.
    """
    try:
        with naming(path), _collected_log() as lines, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield lines
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(f"{path}: does not fit into memory") from error
    except Exception as error:
        raise InputError(f"{path}: cannot be read as {kind} ({reason_of(error)})") from error


@contextmanager
def _collected_log() -> Iterator[list[str]]:
    lines: list[str] = []
    thread = threading.get_ident()

    def collect(record: logging.LogRecord) -> bool:
        if record.thread != thread:
            return True
        lines.append(record.getMessage())
        return False

    loggers = [logging.getLogger(name) for name in LIBRARY_LOGGERS]
    for logger in loggers:
        logger.addFilter(collect)
    try:
        yield lines
    finally:
        for logger in loggers:
            logger.removeFilter(collect)
