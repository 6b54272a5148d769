"""Trainings side by side, each in a process of its own, each recorded as soon as it is done."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from types import TracebackType
from typing import Any

import torch

from benchmarks.record import Record

Row = dict[str, Any]


def _use_threads(threads: int) -> None:
    if threads:
        torch.set_num_threads(threads)


class Trainings:
    """Runs what is not recorded yet.

    Parameters
    ----------
    workers : int
        Trainings at a time.
    threads : int
        Of each; 0: what torch takes.
    tell : callable
        Is given every row, when it is there.
    """

    def __init__(self, workers: int, threads: int, tell: Callable[[Row], None]) -> None:
        self._workers = workers
        self._tell = tell
        context = multiprocessing.get_context("spawn")  # CUDA survives no fork
        self._processes = ProcessPoolExecutor(workers, context, _use_threads, (threads,))
        self._lock = threading.Lock()

    def __enter__(self) -> Trainings:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._processes.shutdown(cancel_futures=kind is not None)

    def row(
        self, record: Record, unit: dict[str, Any], measure: Callable[..., Row], *arguments: Any
    ) -> Future[Row]:
        """Return the row of a unit of work to come: recorded, or what `measure` returns."""
        row: Future[Row] = Future()
        with self._lock:
            known = record.find(**unit)
        if known is not None:
            self._tell(known)
            row.set_result(known)
            return row

        def note(measured: Future[Row]) -> None:
            try:
                with self._lock:
                    found = record.append(unit, {**measured.result(), "workers": self._workers})
            except BaseException as error:  # noqa: BLE001 - who waits for the row has it
                row.set_exception(error)
                return
            self._tell(found)
            row.set_result(found)

        self._processes.submit(measure, *arguments).add_done_callback(note)
        return row
