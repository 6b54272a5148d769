"""Many files in one command: one that fails is named, and the others are done all the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from napari_msseg.cli.exits import say
from napari_msseg.errors import InputError

T = TypeVar("T")
Row = dict[str, Any]


def each_of(
    tasks: Sequence[T], work: Callable[[T], Row], about: Callable[[T], Row]
) -> tuple[list[Row], int]:
    """Do all tasks; return the rows of a report, and how many have failed.

    Parameters
    ----------
    tasks : sequence
    work : callable
        Does a task and returns its row.
    about : callable
        Returns what the row of a failed task holds beside its error.

    Raises
    ------
    InputError
        If the only task there is fails.
    """
    rows, failed = [], 0
    for task in tasks:
        try:
            rows.append(work(task))
        except InputError as error:
            if len(tasks) == 1:
                raise
            failed += 1
            rows.append({**about(task), "error": str(error)})
            say(f"error: {error}")
    return rows, failed
