"""A session: one image, its scribbles, and a network that learns while they change.

`Session.run` is a blocking generator of events. It knows no threads; whoever runs it decides
where. Any thread may call `submit`, `pause`, `resume` and `stop`.
"""

from __future__ import annotations

import dataclasses
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch

from napari_msseg.answers import Answers
from napari_msseg.appraisal import Appraiser, shipped_appraiser
from napari_msseg.checkpoint import Checkpoint, keep_model
from napari_msseg.commands import (
    AskSpots,
    ForgetClasses,
    KeepModel,
    RankImages,
    Request,
    ShowMaps,
    ShowView,
)
from napari_msseg.companions import (
    NO_LESSONS,
    Companion,
    check_companions,
    learn_from,
    without_invalid,
)
from napari_msseg.config import ModelConfig, SessionConfig, default_config
from napari_msseg.devices import choose_device, describe, idle_threads, memory_in_use
from napari_msseg.errors import InputError
from napari_msseg.events import (
    Event,
    Failed,
    ImageRanked,
    MapReady,
    ModelKept,
    Notice,
    PredictionReady,
    SessionState,
    SpotsFound,
    StateChanged,
    StepDone,
)
from napari_msseg.guide import Guide, shipped_guide
from napari_msseg.held_out import held_out
from napari_msseg.insight import draw_maps, find_spots, score_event
from napari_msseg.instant import Interrupted
from napari_msseg.mailbox import Mailbox
from napari_msseg.preprocessing import normalise
from napari_msseg.ranking import Ranking
from napari_msseg.resources import Resources, is_out_of_memory, release_cached_memory
from napari_msseg.scribbles import ScribbleSnapshot
from napari_msseg.tiling import Region
from napari_msseg.trainer import ExtraLoss, StepLosses, Trainer
from napari_msseg.volume import Volume

T = TypeVar("T")

FIRST_PREDICTION_STEP = 6
"""A first answer comes before the first period is over."""
STROKE_RESPONSE_STEPS = 3
"""So many steps after new strokes were taken comes a prediction that knows them."""
SCORE_STEPS = 12
"""Steps after new strokes at which they are left out in turn: not in the middle of things."""
MAX_BAD_STEPS = 20
"""Steps in a row without a finite loss after which a session gives up."""


class Session:
    """Train on the scribbles of one image and predict the image, over and over.

    Parameters
    ----------
    image : Volume
        2D or 3D, one or many channels.
    scribbles : ScribbleSnapshot
        With strokes of at least two classes.
    config : SessionConfig, optional
        Default: `default_config` for the dimensions of the image.
    model : Checkpoint, optional
        Weights to start from instead of random ones.
    number : int
        Stamped on every event.
    extra_loss : callable, optional
        A loss of your own, see `trainer.ExtraLoss`.
    guide : Checkpoint, optional
        Of a guided network, instead of the one that ships with the package.
    companions : sequence of Companion
        Other images, whose strokes are learned from as well; with them the image itself may have
        strokes of fewer classes, or none.

    Raises
    ------
    InputError
        If image, scribbles, configuration and model do not fit each other.

    Examples
    --------
    >>> session = Session(image, scribbles)                           # doctest: +SKIP
    >>> for event in session.run(): print(event)                      # doctest: +SKIP
    """

    def __init__(
        self,
        image: Volume,
        scribbles: ScribbleSnapshot,
        config: SessionConfig | None = None,
        model: Checkpoint | None = None,
        number: int = 0,
        extra_loss: ExtraLoss | None = None,
        guide: Checkpoint | None = None,
        companions: Sequence[Companion] = (),
    ) -> None:
        self.config = config or default_config(image.spatial_ndim)
        self.number = number
        self.state = SessionState.PREPARING
        self.image = image
        self.scribbles = scribbles
        self._companions = tuple(companions)
        self._elsewhere = {int(k) for one in companions for k in np.unique(one.scribbles.classes)}
        self._lessons = NO_LESSONS
        self._ranking = Ranking(self._companions, image, self.config.seed)
        self._guide = guide
        self._check_fit(model)
        self._model = model or self._model_config()
        self._extra_loss = extra_loss
        self._maps = ShowMaps(session=number)
        self._forgotten: tuple[int, ...] = ()
        self._is_answering = True
        self._is_reading_mail = False
        self._mailbox = Mailbox()
        self._trainer: Trainer | None = None
        train = self.config.train
        device = choose_device(self.config.device)
        self._resources = Resources(device, train.batch_size, self.config.tile_shape)

    def _check_fit(self, model: Checkpoint | None) -> None:
        shape = self.image.spatial_shape
        if self.scribbles.shape != shape:
            raise InputError(
                f"the scribbles have shape {self.scribbles.shape} but the image has {shape}: "
                "they must cover the same pixels"
            )
        if self.config.model.ndim != self.image.spatial_ndim:
            raise InputError(f"the configuration is not for {self.image.spatial_ndim}D images")
        if self._guide is not None and self._guide.config.ndim != self.image.spatial_ndim:
            raise InputError(f"the guide is not for {self.image.spatial_ndim}D images")
        check_companions(self.image, self._companions)
        self._require_trainable()
        expected = self._model_config()
        if model is not None and (
            (model.config.ndim, model.config.in_channels) != (expected.ndim, expected.in_channels)
        ):
            raise InputError(
                f"the model is for {model.config.ndim}D images of {model.config.in_channels} "
                f"channel(s), the image is {expected.ndim}D with {expected.in_channels}"
            )

    def _model_config(self) -> ModelConfig:
        return dataclasses.replace(
            self.config.model,
            in_channels=self.image.channels,
            n_classes=max(self.scribbles.n_classes, 1 + max(self._elsewhere, default=0)),
        )

    @property
    def _painted(self) -> set[int]:
        """Classes that have a stroke, here or on a companion."""
        return self._elsewhere | {k for k, n in enumerate(self.scribbles.counts) if n}

    @property
    def _is_trainable(self) -> bool:
        return len(self._painted) >= 2

    def _require_trainable(self) -> None:
        if not self._is_trainable:
            self.scribbles.require_trainable()  # says what is missing
            raise InputError("all strokes are of one class: paint at least one of another class")

    # ------------------------------------------- calls from any thread

    def submit(self, scribbles: ScribbleSnapshot) -> None:
        """Train on these from the next step on; older ones not yet taken are dropped."""
        self._mailbox.put(scribbles)

    def ask(self, request: Request) -> None:
        """Ask for a view, maps, spots or a model file; a newer one replaces one of its kind."""
        self._mailbox.ask(request)

    def unheard(self) -> list[KeepModel]:
        """Return the wishes for a model file that came too late to be done by the session."""
        return [r for r in self._mailbox.take_requests() if isinstance(r, KeepModel)]

    @property
    def is_urgent(self) -> bool:
        """Whether somebody waits for what comes next: a first answer, or one to new strokes."""
        return self._mailbox.has_mail or self._is_answering or bool(self._ranking.wanted)

    def wait(self) -> None:
        """Block while there is nothing to do: paused, or without strokes to learn from."""
        if self._is_reading_mail:
            return
        if self.state in (SessionState.PAUSED, SessionState.WAITING):
            self._mailbox.wait(paused=self.state is SessionState.PAUSED)

    def pause(self) -> None:
        """Stop training after the running step; weights and prediction stay."""
        self._mailbox.set_paused(True)

    def resume(self) -> None:
        """Go on after a pause."""
        self._mailbox.set_paused(False)

    def stop(self) -> None:
        """End, without waiting for the end of the running step."""
        self._mailbox.stop()

    # ------------------------------------------------------- the run

    def run(self) -> Iterator[Event]:
        """Train until stopped or done; yields events, the last one a final `StateChanged`.

        Exceptions do not leave it: they become `Failed`. After the last event the memory of
        the network is freed; `checkpoint` keeps its weights.
        """
        return (event for event in self.turns() if event is not None)

    def turns(self) -> Iterator[Event | None]:
        """Do as `run` does, in pieces of which each is as urgent as `is_urgent` says before it.

        None where a piece ends without an event, since something more urgent has come up.
        """
        try:
            yield from self._run()
        except InputError as error:
            yield from self._fail(str(error), "")
        except Exception as error:  # noqa: BLE001 - whatever it is, the owner must hear of it
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            yield from self._fail(f"training failed: {first}", traceback.format_exc())
        finally:
            self._close()

    def checkpoint(self) -> Checkpoint | None:
        """Return the averaged weights of the run, None before its first step."""
        if self._trainer is not None and self._trainer.steps:
            trained = self._trainer.checkpoint()
            return dataclasses.replace(trained, certainty=self.config.thresholds)
        return self._model if isinstance(self._model, Checkpoint) else None

    def _run(self) -> Iterator[Event | None]:
        yield self._enter(SessionState.PREPARING, f"preparing on {self.device_in_words}")
        self._started: float | None = None
        self._bad_steps = 0
        self._has_left_step = self._has_left_study = False
        self._strokes_taken = 0
        self._scored = -1
        self._resting = False
        yield from self._prepare()
        while not self._mailbox.stopped:
            if self._mailbox.has_mail:
                yield None
            yield from self._take_mail()
            if self.state is not SessionState.TRAINING:
                self.wait()
                continue
            if self._answers.is_provisional and not self._has_left_study:
                yield from self._predict_some()
                self._has_left_study = self._answers.is_provisional
                continue
            self._has_left_study = False
            yield from self._train_step()
            if self._has_left_step:
                continue
            if self._progress >= 1:
                yield from self._predict_all(at_last=True)
                yield self._enter(SessionState.FINISHED)
                return
            if self._prediction_is_due() or self._answers.is_incomplete:
                yield from self._predict_some()
            if self._score_is_due():
                yield from self._score_strokes()
            if self._should_rest():
                yield from self._predict_all(at_last=False)
                self._resting = not self._mailbox.has_scribbles
        yield self._enter(SessionState.STOPPED)

    def _prepare(self) -> Iterator[Event]:
        torch.set_num_threads(self.config.threads or idle_threads())
        normalised = normalise(self.image)
        self._pixels = normalised.data
        self._invalid = normalised.invalid
        if normalised.invalid_count:
            yield self._notice(
                f"{normalised.invalid_count} pixels are NaN or infinite: they are not "
                "trained on and become background"
            )
        self.scribbles = self._without_invalid(self.scribbles)
        self._require_trainable()
        self._lessons = learn_from(self._companions, self.config.seed)

        def new_trainer() -> Trainer:
            return Trainer(
                normalised.data,
                self.scribbles,
                self._model,
                self.config.train,
                self._resources,
                self.config.seed,
                self._extra_loss,
                self.image.spacing,
                self._lessons.excerpts,
            )

        self._trainer = yield from self._with_memory(new_trainer)
        self._answers = Answers(
            self._trainer,
            normalised.data,
            normalised.invalid,
            self.config.instant,
            self.config.seed,
            self.config.thresholds,
            self._load_guide(),
            self.config.answering_threads or torch.get_num_threads(),
            self._lessons,
            self.image.spacing,
            self._load_appraiser(),
        )
        self._answers.interrupted = self._is_interrupted
        yield self._enter(SessionState.TRAINING)
        for request in self._mailbox.take_requests():  # what is on the screen, above all
            yield from self._do(request)
        yield from self._use_scribbles()

    def _is_interrupted(self) -> bool:
        """Whether something waits that must not wait for long."""
        return self._mailbox.has_scribbles or self._mailbox.stopped

    @property
    def _starts_warm(self) -> bool:
        return self.config.instant and self.config.warm_start

    def _load_appraiser(self) -> Appraiser | None:
        is_flat = self.image.spatial_ndim == 2
        return shipped_appraiser() if self._starts_warm and not is_flat else None

    def _load_guide(self) -> Guide | None:
        if not self._starts_warm:
            return None
        checkpoint = self._guide or shipped_guide(self.image.spatial_ndim)
        return None if checkpoint is None else Guide(checkpoint, self._resources.device)

    def _use_scribbles(self) -> Iterator[Event]:
        """Train on the scribbles of now; who needs no training answers them at once."""
        trainer, answers = self._require_trainer(), self._answers
        yield from self._with_memory(lambda: trainer.set_scribbles(self.scribbles))
        self._leave_out_forgotten()
        self._is_answering = True
        answers.use(self.scribbles)
        glance = answers.glance() if answers.has_instant else []
        for region in glance:  # what is on the screen first, the rest between steps
            if region is not glance[0] and self._is_interrupted():
                break
            yield from self._predict_region(region, last=False, ask_network=False)
        if answers.has_instant and not glance:
            yield from self._predict_some(ask_network=False)
        self._is_answering = False

    def _without_invalid(self, scribbles: ScribbleSnapshot) -> ScribbleSnapshot:
        """Leave out strokes on pixels that have no finite value."""
        return without_invalid(scribbles, self._invalid)

    def _take_mail(self) -> Iterator[Event]:
        """Do what is asked, take new scribbles, enter the state that they and switches ask for.

        Between its events nobody waits, whatever the state.
        """
        self._is_reading_mail = True
        try:
            yield from self._read_mail()
        finally:
            self._is_reading_mail = False

    def _read_mail(self) -> Iterator[Event]:
        for request in self._mailbox.take_requests():
            yield from self._do(request)
        while self._ranking.wanted and not self._mailbox.has_mail:
            yield self._rank_one()
        scribbles = self._mailbox.take()
        if scribbles is not None and scribbles.shape != self.scribbles.shape:
            yield self._notice("scribbles of another shape than the image were not used")
        elif scribbles is not None:
            self.scribbles = self._without_invalid(scribbles)
            self._strokes_taken = self._steps
            self._resting = False
            if self._is_trainable:
                yield from self._use_scribbles()
        wanted, words = self._wanted_state()
        if self.state is not wanted:
            yield self._enter(wanted, words)

    def _do(self, request: Request) -> Iterator[Event]:
        match request:
            case ForgetClasses():
                self._forgotten = request.classes
                self._leave_out_forgotten()
            case ShowView():
                self._answers.view = tuple(map(slice, request.start, request.stop))
            case ShowMaps():
                self._maps = request
                for region in self._require_trainer().regions():
                    yield from self._show_maps(region)
            case AskSpots():
                yield self._find_spots()
            case RankImages():
                self._ranking.wanted = list(request.names)
            case KeepModel():
                error = keep_model(self.checkpoint(), request.path)
                yield ModelKept(**self._stamp(), path=request.path, error=error)

    def _leave_out_forgotten(self) -> None:
        """Predict no class that was taken away, unless somebody has painted it (again)."""
        gone = tuple(k for k in self._forgotten if k not in self._painted)
        self._require_trainer().leave_out(gone)

    def _wanted_state(self) -> tuple[SessionState, str]:
        """Return the state that switches and scribbles ask for, and words about it."""
        if self._mailbox.paused:
            return SessionState.PAUSED, ""
        if not self._is_trainable:
            return SessionState.WAITING, "waiting for strokes of at least two classes"
        if self._resting:
            return SessionState.WAITING, "resting until you paint again"
        return SessionState.TRAINING, ""

    def _train_step(self) -> Iterator[Event]:
        trainer = self._require_trainer()
        if self._started is None:
            self._started = time.monotonic()
        trainer.set_progress(self._progress)
        try:
            terms: StepLosses | None = yield from self._with_memory(
                lambda: trainer.step(self._leave_step)
            )
        except Interrupted:
            self._has_left_step = True
            return
        self._has_left_step = False
        if terms is None:
            self._bad_steps += 1
            if self._bad_steps >= MAX_BAD_STEPS:
                raise InputError("training gives no finite numbers: check the image's intensities")
            return
        self._bad_steps = 0
        yield StepDone(
            **self._stamp(),
            step=trainer.steps,
            seconds=self._seconds,
            memory=memory_in_use(self._resources.device),
            **dataclasses.asdict(terms),
        )

    def _leave_step(self) -> None:
        """Leave a step for somebody who waits; but no two, or nothing is ever learned."""
        if self._mailbox.stopped or (self._mailbox.has_scribbles and not self._has_left_step):
            raise Interrupted

    def _score_is_due(self) -> bool:
        """Whether these strokes have waited long enough for their score."""
        wanted = self.config.score and self._scored != self.scribbles.generation
        return wanted and self._steps - self._strokes_taken >= SCORE_STEPS

    def _score_strokes(self) -> Iterator[Event]:
        """Leave strokes out in turn; given up where newer ones wait to be taken."""
        score = held_out(
            self._pixels,
            self.scribbles.painted,
            self._require_trainer().n_classes,
            seed=self.config.seed,
            threads=torch.get_num_threads(),
            interrupted=self._is_interrupted,
            lessons=self._lessons,
        )
        if score is not None:
            self._scored = self.scribbles.generation
            yield score_event(score, **self._stamp())

    # ---------------------------------------------------- prediction

    def _prediction_is_due(self) -> bool:
        period = self.config.train.s2l.ensemble_period
        since_strokes = self._steps - self._strokes_taken
        return (
            self._steps % period == 0
            or self._steps == FIRST_PREDICTION_STEP
            or (self._strokes_taken > 0 and since_strokes == STROKE_RESPONSE_STEPS)
        )

    def _predict_some(self, ask_network: bool = True) -> Iterator[Event]:
        """Go on covering the image, for as many pixels as a turn affords.

        New strokes cut a turn short: they are answered first.
        """
        regions: list[Region] = []
        try:
            regions = self._answers.turn()
            while regions:
                if self._answers.interrupted():
                    raise Interrupted
                last = self._answers.sweep_is_over and len(regions) == 1
                yield from self._predict_region(regions[0], last, ask_network)
                regions.pop(0)
        except Interrupted:
            self._answers.put_back(regions)

    def _predict_all(self, at_last: bool) -> Iterator[Event]:
        """Cover the whole image with the weights of now; unless at last, strokes cut it short."""
        if at_last:
            self._answers.interrupted = lambda: self._mailbox.stopped
        self._answers.restart()
        yield from self._predict_some()
        while not (self._answers.sweep_is_over or self._answers.interrupted()):
            yield from self._predict_some()

    def _predict_region(
        self, region: Region, last: bool, ask_network: bool = True
    ) -> Iterator[Event]:
        answer = yield from self._with_memory(lambda: self._answers.predict(region, ask_network))
        if answer is None:
            return
        wanted = self.config.probabilities  # nobody pays for the copy otherwise
        sent = answer.probabilities.half().cpu().numpy() if wanted else None
        yield PredictionReady(
            **self._stamp(),
            start=tuple(s.start for s in region),
            classes=answer.classes,
            probabilities=sent,
            step=self._steps,
            last=last,
        )
        yield from self._show_maps(region)

    def _show_maps(self, region: Region) -> Iterator[Event]:
        for kind, class_, values in draw_maps(self._require_trainer(), self._maps, region):
            start = tuple(s.start for s in region)
            yield MapReady(**self._stamp(), kind=kind, class_=class_, start=start, values=values)

    def _find_spots(self) -> SpotsFound:
        positions, scores = find_spots(self._require_trainer(), self.scribbles, self.image.spacing)
        return SpotsFound(**self._stamp(), positions=positions, scores=scores)

    def _rank_one(self) -> ImageRanked:
        name, unsure, error = self._ranking.next(self._answers.uncertainty)
        return ImageRanked(**self._stamp(), name=name, uncertainty=unsure, error=error)

    def _with_memory(self, work: Callable[[], T]) -> Generator[Event, None, T]:
        """Do `work`; when memory runs out, step down the ladder, say so, and try again."""
        while True:
            try:
                return work()
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            # Outside the except block: the exception pins the tensors of the failed attempt.
            step_down = self._resources.smaller()
            if step_down is None:
                raise InputError("there is not enough memory for this image, even in small parts")
            release_cached_memory(self._resources.device)
            self._resources, words = step_down
            yield self._notice(f"memory ran out: {words}")
            if self._trainer is not None:
                self._trainer.move_to(self._resources)
                # Cut anew; on another device the ensemble is empty again.
                self._answers.restart(vote=True)

    # ------------------------------------------------------- helpers

    @property
    def device_in_words(self) -> str:
        """Device and precision, e.g. ``"cpu, bfloat16"``."""
        return describe(self._resources.device, self.image.spatial_ndim)

    @property
    def _steps(self) -> int:
        return self._require_trainer().steps

    @property
    def _seconds(self) -> float:
        return 0.0 if self._started is None else time.monotonic() - self._started

    @property
    def _progress(self) -> float:
        """Used part of the budget of steps and seconds, 0 where there is none."""
        steps, seconds = self.config.max_steps, self.config.max_seconds
        return max(
            self._steps / steps if steps is not None else 0.0,
            self._seconds / seconds if seconds is not None else 0.0,
        )

    def _should_rest(self) -> bool:
        limit = self.config.rest_after
        if limit is None or self._resting:
            return False
        return self._steps - self._strokes_taken >= limit

    def _require_trainer(self) -> Trainer:
        if self._trainer is None:
            raise RuntimeError("the session is not running")
        return self._trainer

    def _stamp(self) -> dict[str, int]:
        return {"session": self.number, "generation": self.scribbles.generation}

    def _enter(self, state: SessionState, message: str = "") -> StateChanged:
        self.state = state
        return StateChanged(**self._stamp(), state=state, message=message)

    def _notice(self, message: str) -> Notice:
        return Notice(**self._stamp(), message=message)

    def _fail(self, message: str, details: str) -> Iterator[Event]:
        yield Failed(**self._stamp(), message=message, details=details)
        yield self._enter(SessionState.FAILED, message)

    def _close(self) -> None:
        """Keep the weights on the CPU and free everything else."""
        if self._trainer is not None:
            checkpoint = self.checkpoint()
            self._model = checkpoint if checkpoint is not None else self._model
            self._trainer.release()
            self._trainer = None
        self.__dict__.pop("_answers", None)  # it knows us: together we would stay until collected
