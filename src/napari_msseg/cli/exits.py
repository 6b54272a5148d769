"""How a command ends: the one place that turns exceptions into a line and an exit code."""

from __future__ import annotations

import signal
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

import typer

from napari_msseg.errors import InputError, InputWarning

DEFECT, BAD_INPUT, INTERRUPTED = 1, 2, 130


def say(text: str) -> None:
    """Print one line for a human; standard output is kept for results."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def exit_codes() -> Iterator[None]:
    """Run a command in it.

    An `InputError` becomes ``error: …`` and exit code 2, an `InputWarning` the line
    ``warning: …``, Ctrl-C one line and 130.
    So does SIGTERM, as a cluster or a window sends it: what was begun to be written is taken away.
    Anything else is a defect of ours: the traceback, the message and 1.
    """
    before = signal.getsignal(signal.SIGTERM)
    if before is signal.SIG_DFL:  # what is ignored stays so
        _handle_sigterm(signal.default_int_handler)
    try:
        with _warnings_as_lines():
            yield
    except typer.Exit:
        raise
    except InputError as error:
        say(f"error: {' '.join(str(error).split())}")
        raise typer.Exit(BAD_INPUT) from None
    except KeyboardInterrupt:
        say("interrupted")
        raise typer.Exit(INTERRUPTED) from None
    except Exception as error:  # noqa: BLE001 - the last resort, and it hides nothing
        # a failed session carries the traceback of the worker as further lines
        first = (str(error).splitlines() or [""])[0] or type(error).__name__
        say(traceback.format_exc().rstrip())
        say(f"error: {first} (this is a defect of napari-msseg; please report the lines above)")
        raise typer.Exit(DEFECT) from None
    finally:
        if before is signal.SIG_DFL:
            _handle_sigterm(signal.SIG_DFL)


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    with warnings.catch_warnings():
        # also where the same was said before: of another image of a folder
        warnings.simplefilter("always", InputWarning)
        others = warnings.showwarning

        def show(
            message: Warning | str, category: type[Warning], filename: str, lineno: int,
            file: TextIO | None = None, line: str | None = None,
        ) -> None:  # fmt: skip
            if issubclass(category, InputWarning):
                say(f"warning: {' '.join(str(message).split())}")
            else:
                others(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield


def _handle_sigterm(handler: Any) -> None:
    with suppress(ValueError):  # not in the main thread: whoever runs us there knows what to do
        signal.signal(signal.SIGTERM, handler)
