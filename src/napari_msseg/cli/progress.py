"""What a training says while it runs: a bar on a terminal, a few lines anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from napari_msseg.cli.exits import say
from napari_msseg.events import Event, Notice, PredictionReady, SessionState, StateChanged, StepDone

PLAIN_PARTS = 4
"""Lines of progress that a training prints into a file."""


class Display(Protocol):
    """Where progress is shown."""

    def line(self, text: str) -> None:
        """Show a line that stays."""

    def update(self, fraction: float, text: str) -> None:
        """Show how far it is, 0…1, and what there is to say about it."""


@dataclass(frozen=True)
class Budget:
    """When a training ends: after seconds, steps, or whichever comes first."""

    seconds: float | None
    steps: int | None

    def fraction(self, event: StepDone) -> float:
        """Return the used part of it, 0…1."""
        return min(1.0, max(
            event.seconds / self.seconds if self.seconds else 0.0,
            event.step / self.steps if self.steps else 0.0,
        ))  # fmt: skip

    def position(self, event: StepDone) -> str:
        """Return how far it is, in words."""
        steps = f"step {event.step}" + (f" of {self.steps}" if self.steps else "")
        limit = f" of {self.seconds:g}" if self.seconds else ""
        return f"{steps}, {event.seconds:.1f}{limit} s"


class Watch:
    """Receives the events of a session and words them for a display.

    Parameters
    ----------
    display : Display
    budget : Budget
    """

    def __init__(self, display: Display, budget: Budget) -> None:
        self._display = display
        self._budget = budget
        self._started = time.monotonic()
        self._answered = False

    def __call__(self, event: Event) -> None:
        """Show one event, if there is anything to show about it."""
        match event:
            case StateChanged(state=SessionState.PREPARING):
                self._display.line(event.message)
            case Notice():
                self._display.line(f"warning: {event.message}")
            case PredictionReady(last=True) if not self._answered:
                self._answered = True
                seconds = time.monotonic() - self._started
                self._display.line(f"first answer after {seconds:.1f} s (step {event.step})")
            case StepDone():
                rate = event.step / max(event.seconds, 1e-9)
                text = f"{self._budget.position(event)}, {rate:.1f} steps/s, loss {event.total:.3f}"
                self._display.update(self._budget.fraction(event), text)


class PlainDisplay:
    """Lines without escape codes, as few as tell that it is alive."""

    def __init__(self) -> None:
        self._shown = 0

    def line(self, text: str) -> None:
        """Print a line."""
        say(text)

    def update(self, fraction: float, text: str) -> None:
        """Print a line when another part is done."""
        part = int(fraction * PLAIN_PARTS)
        if part > self._shown:
            self._shown = part
            say(text)


class BarDisplay:
    """A bar that stays in place below the lines."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=1.0, text="starting")

    def line(self, text: str) -> None:
        """Print a line above the bar."""
        style = "yellow" if text.startswith("warning:") else ""
        self._progress.console.print(text, style=style, markup=False, highlight=False)

    def update(self, fraction: float, text: str) -> None:
        """Move the bar."""
        self._progress.update(self._task, completed=fraction, text=text)


@contextmanager
def showing() -> Iterator[Display]:
    """Yield where progress is shown: a bar on a terminal, lines anywhere else."""
    console = Console(stderr=True)
    # rich believes in a terminal where FORCE_COLOR is set; a log file is none all the same
    if not sys.stderr.isatty() or console.is_dumb_terminal:
        yield PlainDisplay()
        return
    columns = (BarColumn(16), TextColumn("{task.fields[text]}", markup=False))
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as progress:
        yield BarDisplay(progress)


@contextmanager
def watching(seconds: float | None, steps: int | None) -> Iterator[Watch]:
    """Yield the `on_event` of a training that ends after `seconds` or `steps`."""
    with showing() as display:
        yield Watch(display, Budget(seconds, steps))
