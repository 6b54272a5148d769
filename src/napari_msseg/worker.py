"""The worker process, which `worker_main` starts.

Reads commands from standard input and writes replies to standard output, as in `wire`. One
thread reads; the main thread runs sessions. It ends when its input ends, so it never outlives
the process that started it.
"""

from __future__ import annotations

import dataclasses
import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import EllipsisType
from typing import IO, Any, NoReturn

import numpy as np
import torch

from napari_msseg.checkpoint import Checkpoint, keep_model
from napari_msseg.commands import (
    COMMANDS,
    REQUESTS,
    ImageMapped,
    KeepModel,
    PauseSession,
    ResumeSession,
    ShareCompanion,
    StartSession,
    StopSession,
    SubmitScribbles,
    WorkerReady,
)
from napari_msseg.companions import Companion
from napari_msseg.config import ModelConfig, Scribble2LabelConfig, TrainConfig
from napari_msseg.devices import answering_threads, choose_device, describe, live_threads
from napari_msseg.errors import InputError
from napari_msseg.events import Event, Failed, ModelKept, Notice, SessionState, StateChanged
from napari_msseg.mapped_image import map_image
from napari_msseg.resources import Resources
from napari_msseg.scheduling import TwoSpeeds, be_nice
from napari_msseg.scribbles import ScribbleSnapshot
from napari_msseg.session import Session
from napari_msseg.trainer import Trainer
from napari_msseg.wire import Codec

FIRST_COMMAND_SECONDS = 0.05
"""What the reading thread needs to find a command that lies in the pipe already."""


class Worker:
    """Hosts one session after another.

    Parameters
    ----------
    commands, replies : binary streams
    """

    def __init__(self, commands: IO[bytes], replies: IO[bytes]) -> None:
        self._commands = commands
        self._replies = replies
        self._waiting: queue.SimpleQueue[StartSession | KeepModel] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._has_work = threading.Event()
        self._newest = -1
        self._is_over = True
        self._early: list[Any] = []
        self._companions: list[ShareCompanion] = []
        self._speeds = TwoSpeeds()
        self._session: Session | None = None
        self._model: Checkpoint | None = None
        self._model_is_of = -1  # whose weights these are

    def serve(self) -> NoReturn:
        """Run sessions; the process ends when the commands end."""
        reader = threading.Thread(target=self._read, daemon=True)
        reader.start()
        torch.set_num_threads(live_threads())
        # Who has pressed Train already does not wait for a rehearsal.
        if not self._has_work.wait(FIRST_COMMAND_SECONDS):
            warm_up(self._has_work.is_set)
        self._reply(WorkerReady(devices=available_devices(), description=describe(choose_device())))
        while True:
            job = self._waiting.get()
            if isinstance(job, KeepModel):
                self._keep(job)
            elif job.session == self._newest:
                self._run(job)

    # --------------------------------------------- the reading thread

    def _read(self) -> None:
        codec = Codec(COMMANDS)
        try:
            while (command := codec.read(self._commands)) is not None:
                self._obey(command)
        finally:
            # The owner closed the pipe or is gone: nothing here is worth finishing.
            os._exit(0)

    def _obey(self, command: Any) -> None:
        with self._lock:
            if isinstance(command, ShareCompanion):
                ours = [c for c in self._companions if c.session == command.session]
                self._companions = [*ours, command]
            elif isinstance(command, StartSession):
                self._newest = command.session
                self._is_over = False
                self._has_work.set()
                if self._session is not None:
                    self._session.stop()
                self._end_early()
                self._waiting.put(command)
            elif command.session != self._newest:
                return
            elif self._session is not None and self._session.number == command.session:
                tell(self._session, command)
            elif self._is_over:
                if isinstance(command, KeepModel):
                    self._waiting.put(command)
            else:
                self._early.append(command)

    # ------------------------------------------------ the main thread

    def _run(self, start: StartSession) -> None:
        try:
            image = map_image(start.image)
            companions = self._companions_of(start)
            self._reply(ImageMapped(session=start.session))
            scribbles = ScribbleSnapshot(
                image.spatial_shape, start.indices, start.classes, start.generation, start.locked
            )
            config = start.config
            if not config.threads:  # the GUI needs a core of its own
                config = dataclasses.replace(
                    config, threads=live_threads(), answering_threads=answering_threads()
                )
            session = Session(
                image,
                scribbles,
                config,
                self._fitting(start),
                start.session,
                companions=companions,
            )
        except (ValueError, TypeError, OSError) as error:  # InputError is a ValueError
            self._refuse(start, str(error))
            return
        with self._lock:
            self._session = session
            if start.session != self._newest:  # overtaken while the image was mapped
                session.stop()
            else:  # what came early is for the newest, and for nobody else
                early, self._early = self._early, []
                for command in early:
                    tell(session, command)
        for event in self._events_of(session):
            self._reply(event)
        # None where it was stopped before its first step: never the weights of another session
        self._model, self._model_is_of = session.checkpoint(), start.session
        with self._lock:
            self._session = None
            self._is_over = start.session == self._newest
            late = session.unheard()
        for command in late:  # also where another session waits: somebody waits for an answer
            self._keep(command)

    def _companions_of(self, start: StartSession) -> list[Companion]:
        """Map the images that were sent for a session."""
        with self._lock:
            sent = [c for c in self._companions if c.session == start.session]
        found = []
        for one in sent:
            image = map_image(one.image)
            scribbles = ScribbleSnapshot(image.spatial_shape, one.indices, one.classes)
            found.append(Companion(image, scribbles, one.name))
        return found

    def _events_of(self, session: Session) -> Iterator[Event]:
        """Run a session, each part of it at the speed that it deserves."""
        turns = session.turns()
        event: Event | EllipsisType | None = None
        while event is not ...:
            if event is not None:
                yield event
            session.wait()  # here, so that whoever is woken by a stroke is quick
            event = self._speeds.do(lambda: next(turns, ...), session.is_urgent)

    def _end_early(self) -> None:
        """Forget what was said to a session that will not begin; wishes get their answer."""
        early, self._early = self._early, []
        for command in early:
            if isinstance(command, KeepModel):
                self._waiting.put(command)

    def _keep(self, command: KeepModel) -> None:
        """Write the weights of a session, if it has any: never those of another one."""
        ours = self._model if command.session == self._model_is_of else None
        error = keep_model(ours, command.path)
        self._reply(
            ModelKept(session=command.session, generation=0, path=command.path, error=error)
        )

    def _fitting(self, start: StartSession) -> Checkpoint | None:
        """Return the model of the session before, where it is wanted and fits this one."""
        model = self._kept(start) if start.model_path else self._model
        if model is None or not start.keep_model:
            return None
        _, channels = start.image.kind
        fits = (model.config.ndim, model.config.in_channels) == (start.config.model.ndim, channels)
        return model if fits else None

    def _kept(self, start: StartSession) -> Checkpoint | None:
        """Return the model that an earlier process left for this image, if there is one."""
        if not (start.keep_model and Path(start.model_path).is_file()):
            return None
        try:
            return Checkpoint.load(start.model_path)
        except InputError as error:
            words = f"the kept model cannot be used, training begins anew ({error})"
            self._reply(Notice(session=start.session, generation=start.generation, message=words))
            return None

    def _refuse(self, start: StartSession, message: str) -> None:
        number, generation = start.session, start.generation
        with self._lock:
            self._is_over = number == self._newest
            if self._is_over:
                self._end_early()
            if start.keep_model and not start.model_path:
                self._model_is_of = number  # it would have gone on from that
        self._reply(Failed(session=number, generation=generation, message=message))
        self._reply(
            StateChanged(
                session=number, generation=generation, state=SessionState.FAILED, message=message
            )
        )

    def _reply(self, message: Any) -> None:
        for buffer in Codec.encode(message):
            self._replies.write(buffer)
        self._replies.flush()


def tell(session: Session, command: Any) -> None:
    """Pass a command on to a session."""
    match command:
        case SubmitScribbles():
            scribbles = ScribbleSnapshot(
                command.shape,
                command.indices,
                command.classes,
                command.generation,
                command.locked,
            )
            session.submit(scribbles)
        case PauseSession():
            session.pause()
        case ResumeSession():
            session.resume()
        case StopSession():
            session.stop()
        case _ if isinstance(command, REQUESTS):
            session.ask(command)


def available_devices() -> tuple[str, ...]:
    """Return the devices that a user can choose on this machine."""
    cuda = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return ("auto", *cuda, *mps, "cpu")


def warm_up(enough: Callable[[], bool] = lambda: False) -> None:
    """Predict and take one small step, so that the first real ones do not pay for the set-up.

    Given up between the two where somebody has come meanwhile.
    """
    image = np.zeros((1, 128, 128), np.float32)
    scribbles = ScribbleSnapshot.from_labels(np.tile([[1, 2]], (128, 64)).astype(np.uint8))
    resources = Resources(choose_device(), 1, (128, 128))
    trainer = Trainer(
        image,
        scribbles,
        ModelConfig(),
        TrainConfig(s2l=Scribble2LabelConfig(warm_up_steps=0)),
        resources,
        0,
    )
    trainer.predict(trainer.regions()[0])
    if not enough():
        trainer.step()
    trainer.release()


def main() -> None:
    """Serve standard input and output at low priority."""
    be_nice()
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # Whatever is printed from now on must not print into the replies.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    # The reading thread holds standard input, so the process is left at once in every case.
    try:
        Worker(sys.stdin.buffer, replies).serve()
    except BrokenPipeError:
        os._exit(0)  # the owner is gone
    except BaseException:  # noqa: BLE001 - the owner reads the reason from standard error
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
