"""The dock “Scribble segmentation”: wires panels, layers and the live session together."""

from __future__ import annotations

import weakref
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Image, Labels
from napari.utils.notifications import show_warning
from qtpy.QtCore import QSize
from qtpy.QtGui import QKeyEvent
from qtpy.QtWidgets import QFrame, QScrollArea, QVBoxLayout, QWidget

from napari_msseg._napari import guard, layers, questions
from napari_msseg._napari.answer_layers import Shown
from napari_msseg._napari.chores import Chores
from napari_msseg._napari.class_intents import ClassIntents
from napari_msseg._napari.coach import Coach
from napari_msseg._napari.file_dialogs import FileDialogs
from napari_msseg._napari.gl_context import CanvasContext
from napari_msseg._napari.guard import StrokeGuard
from napari_msseg._napari.help import help_row
from napari_msseg._napari.keeper import Keeper
from napari_msseg._napari.keys import Keys
from napari_msseg._napari.lifetimes import Disconnect, End, weak
from napari_msseg._napari.live import LiveSession
from napari_msseg._napari.lock_intents import LockIntents
from napari_msseg._napari.lock_panel import LockPanel
from napari_msseg._napari.member import Member
from napari_msseg._napari.moment_panel import MomentPanel
from napari_msseg._napari.navigator import Navigator
from napari_msseg._napari.object_panel import ObjectPanel
from napari_msseg._napari.object_views import ObjectViews
from napari_msseg._napari.offers import OfferPanel
from napari_msseg._napari.panels import ExportPanel, LayerPanel, LookPanel, TrainPanel
from napari_msseg._napari.progress_panel import ProgressPanel
from napari_msseg._napari.quiet import quieten
from napari_msseg._napari.rest_collector import RestCollector
from napari_msseg._napari.session_files import SessionFiles
from napari_msseg._napari.study import Study
from napari_msseg._napari.study_panel import StudyPanel
from napari_msseg._napari.time_machine import TimeMachine
from napari_msseg._napari.tool_tips import break_tool_tips
from napari_msseg.classes import ClassTable
from napari_msseg.commands import WorkerReady
from napari_msseg.errors import InputError
from napari_msseg.events import MapKind, PredictionReady, SessionState, StepDone
from napari_msseg.saved_session import SavedSession
from napari_msseg.scribbles import ScribbleSnapshot
from napari_msseg.settings import Settings

if TYPE_CHECKING:
    import napari

DOCK_WIDTH = 320
PANEL_MARGINS = 6, 6, 6, 6
SCROLL_BAR = 14
NARROW = 1200
"""In a window of less than so many pixels the dock is as narrow as it can be."""
PAUSING = "Pausing after this step…"
NO_IMAGE = "Open an image first: Open…, a file dropped on the viewer, or File › Open Sample."
READY = "Ready: press Train."
WORDS = {
    SessionState.PREPARING: "Preparing the image…",
    SessionState.TRAINING: "Training. Keep painting where it is wrong.",
    SessionState.PAUSED: "Paused. The prediction and the model are kept.",
    SessionState.WAITING: "Waiting for strokes.",
    SessionState.FAILED: "Training failed. Your strokes are safe.",
    SessionState.STOPPED: "Stopped. Train goes on from the same model; Reset forgets it.",
    SessionState.FINISHED: "Done. Paint corrections and press Train to go on.",
}


class ScribbleWidget(QWidget):  # type: ignore[misc]
    """Scribble on an image and watch a network learn to segment it.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    """

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.settings = Settings.load()
        self.session = session = LiveSession(napari_viewer)
        self.offers = OfferPanel()
        self.layer_panel = panel = LayerPanel()
        self.train_panel = TrainPanel()
        self.progress_panel = ProgressPanel()
        self.look_panel = LookPanel()
        self.object_panel = ObjectPanel()
        self.lock_panel = LockPanel()
        self.moment_panel = MomentPanel()
        self.study_panel = StudyPanel()
        self.export_panel = ExportPanel()
        # No callback below may hold the dock itself: it must go when napari lets go of it.
        locks = session.answers.locks
        self.keeper = Keeper(lambda: session.classes, locked=locks.snapshot)
        self.files = SessionFiles(session, self.keeper)
        self.dialogs = FileDialogs(session, self.files, panel, self.settings.folder)
        self.objects = ObjectViews(session, self.object_panel)
        self.locks = LockIntents(session, self.lock_panel, self.objects.chosen)
        self.time_machine = TimeMachine(session, self.keeper, self.moment_panel)
        self.study = Study(session, self.keeper, self.study_panel)
        self.chores = Chores(session, self.keeper, self.study, panel, self.export_panel)
        self.guard = StrokeGuard(napari_viewer)
        self.navigator = Navigator(session)
        self.coach = Coach(session)
        self.classes = ClassIntents(
            session, panel.classes, panel.chosen_scribbles, panel.chosen_image
        )
        self.keys = Keys(
            napari_viewer,
            self.classes.choose_place,
            self.classes.toggle,
            self.navigator.next,
            self.locks.toggle_region,
        )
        self.rest_collector = RestCollector(napari_viewer)
        self.canvas_context = CanvasContext(napari_viewer, self)
        self._device_in_words = "starting the worker"
        self._counted: Labels | None = None
        self._classes_of: tuple[Any, str] = (None, "")  # image (weak) and its name
        self._guided: tuple[int, int] | None = None  # the choice that was spoken of
        self._lay_out()
        quieten(self)
        break_tool_tips(self)
        self._use_settings()
        self._wire()
        self._list_layers()
        # Both: a dock closed by its × is collected before `destroyed` can fire.
        end = End(
            self.dialogs.close,
            self.files.close,
            self.keeper.close,
            self.guard.close,
            self.locks.close,
            self.keys.release,
            self.objects.close,
            self.chores.close,
            self.study.close,
            self.time_machine.close,
            self.navigator.close,
            self.rest_collector.close,
            self.canvas_context.close,
            session.close,
        )
        weakref.finalize(self, end)
        self.destroyed.connect(end)

    def _lay_out(self) -> None:
        inside = QWidget()
        column = QVBoxLayout(inside)
        column.setContentsMargins(4, 0, 4, 4)
        for panel in (
            self.layer_panel,
            self.train_panel,
            self.progress_panel,
            self.look_panel,
            self.object_panel,
            self.lock_panel,
            self.moment_panel,
            self.study_panel,
            self.export_panel,
        ):
            column.addWidget(panel)
            panel.layout().setContentsMargins(*PANEL_MARGINS)
        column.addStretch(1)
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setWidget(inside)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        top = help_row(self)
        top.insertWidget(0, self.progress_panel.status, 1)
        box.addLayout(top)
        box.addWidget(scroll)
        box.addWidget(self.offers)  # what it takes its room from is below: nothing jumps
        bottom = QVBoxLayout()
        bottom.setContentsMargins(4, 0, 4, 4)
        bottom.addWidget(self.export_panel.export_button)
        box.addLayout(bottom)
        self.setMinimumWidth(inside.minimumSizeHint().width() + SCROLL_BAR)

    def sizeHint(self) -> QSize:
        """Ask for a narrow dock: the image needs the room."""
        is_narrow = self.window() is not self and self.window().width() < NARROW
        width = self.minimumWidth() if is_narrow else DOCK_WIDTH
        return QSize(width, super().sizeHint().height())

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Take the keys of the brush, wherever in the dock somebody has clicked last."""
        if not self.keys.press(event.text()):
            super().keyPressEvent(event)

    def _say_what_is_elsewhere(self, path: str) -> None:
        """Say that a session is of one image, where others are painted on."""
        others = sum(m.strokes > 0 for m in self.study.members if m is not self.study.current)
        if others:
            self.progress_panel.say(
                f"Saved {path}: this image alone. “Save strokes…” writes those of the {others} "
                "others too; in the dock they are kept anyway."
            )

    def _use_settings(self) -> None:
        self.train_panel.live.setChecked(self.settings.live)
        self.session.live = self.settings.live
        self.session.device = self.settings.device
        self.train_panel.show_devices(list(dict.fromkeys(("auto", self.settings.device))))
        self.train_panel.device.setCurrentText(self.settings.device)

    def _wire(self) -> None:
        self._wire_panels()
        self._wire_session()
        events = self.viewer.layers.events
        for event in (events.inserted, events.removed, events.reordered):
            event.connect(self._list_layers)
        events.inserted.connect(self._follow_new_image)
        self.destroyed.connect(Disconnect(events, self._list_layers, self._follow_new_image))

    def _wire_panels(self) -> None:
        panel, train, export = self.layer_panel, self.train_panel, self.export_panel
        panel.open_image.connect(self._open_images)
        panel.new_scribbles.connect(self.new_scribbles)
        panel.image_chosen.connect(self._use_chosen_image)
        panel.scribbles_chosen.connect(self._use_chosen_scribbles)
        train.train.connect(self.train)
        train.once.connect(self.update_once)
        train.pause.connect(self._pause_or_resume)
        train.stop.connect(self.session.stop)
        train.reset.connect(self._reset)
        train.live_toggled.connect(self._set_live)
        train.device_chosen.connect(self._set_device)
        self.look_panel.map_toggled.connect(self._show_map)
        self.look_panel.next_spot.connect(self.navigator.next)
        export.export.connect(self.dialogs.save_mask)
        export.save_session.connect(self.dialogs.save_session)
        export.open_session.connect(self.dialogs.open_session)

    def _wire_session(self) -> None:
        session, progress = self.session, self.progress_panel
        session.state_changed.connect(self._show_state)
        session.stepped.connect(self._show_step)
        session.predicted.connect(self._show_answered)
        session.worker_ready.connect(self._show_worker)
        self.coach.scored.connect(progress.show_score)
        self.coach.agreed.connect(progress.show_agreement)
        self.coach.said.connect(self._advise)
        self.coach.doubted.connect(self._offer_look)
        session.classes_changed.connect(self._show_classes)
        session.warned.connect(self._warn)
        session.failed.connect(self._warn)
        session.map_gone.connect(self.look_panel.forget)
        self.navigator.said.connect(progress.say)
        self.classes.warned.connect(self._warn)
        self.classes.changed.connect(self._keep_classes)
        self.classes.said.connect(progress.say)
        self.keeper.painted.connect(self._count)
        self.keeper.found.connect(self._offer_kept)
        self.keeper.failed.connect(self._warn)
        self.files.failed.connect(self._warn)
        self.files.saved.connect(self._say_what_is_elsewhere)
        self.objects.said.connect(progress.say)
        self.objects.warned.connect(self._warn)
        self.objects.save_wanted.connect(self.dialogs.save_table)
        self.locks.said.connect(progress.say)
        self.locks.doubted.connect(self._offer_unlock)
        self.time_machine.said.connect(progress.say)
        self.time_machine.warned.connect(self._warn)
        self.time_machine.leaving.connect(self._leave)
        self.session.answers.locks.changed.connect(self.keeper.keep_locks)
        self.study.arrived.connect(self._arrive)
        self.study.said.connect(progress.say)
        self.study.warned.connect(self._warn)
        self.chores.said.connect(progress.say)
        self.chores.warned.connect(self._warn)
        self.dialogs.said.connect(progress.say)
        self.dialogs.warned.connect(self._warn)
        self.dialogs.opened.connect(self._take_in_hand)
        self.dialogs.folder_used.connect(self._remember_folder)
        self.guard.missed.connect(self._offer_move)

    # ------------------------------------------------------------ intents

    def new_scribbles(self) -> None:
        """Make a scribble layer over the chosen image and take the brush in hand."""
        image = self.layer_panel.chosen_image()
        if image is None:
            self._warn(NO_IMAGE)
            return
        made_for, name = self._classes_of
        scribbles = layers.new_scribbles(image, self.session.classes)
        scribbles.brush_size = layers.fitting_brush(self.viewer, image)
        self._take_in_hand(scribbles)
        is_taken_over = bool(name) and made_for() is not image and not self.study.shares
        if is_taken_over and self.session.classes != ClassTable.default():
            names = [one.name for one in self.session.classes]
            begin = weak(self._begin_with_two, scribbles)
            self.offers.offer(questions.keep_classes(names, name, scribbles, begin))

    def _begin_with_two(self, scribbles: Labels) -> None:
        """Forget the classes of another image, but for those that are painted here already."""
        if scribbles is self.session.chosen:
            self.session.change_classes(ClassTable.default())
            self._count_anew(self.layer_panel.chosen_image(), scribbles)  # what is painted stays
            self.classes.choose(self.session.classes.classes[1].class_)

    def _open_images(self) -> None:
        """Ask for images, open them with our reader, and choose the last one."""
        opened = self.dialogs.open_images()
        if opened:
            self.choose_image(opened[-1])
            layers.bring_into_view(self.viewer, opened[-1])

    def choose_image(self, layer: Any, own: bool = False) -> None:
        """Choose an image, if that is what the layer is; with `own`, no scribbles but its own."""
        if layers.is_image(layer) and (own or layer is not self.layer_panel.chosen_image()):
            self.layer_panel.choose(self.layer_panel.image, layer)
            self._use_chosen_image(own)

    def _arrive(self, member: Member) -> None:
        """Choose an image of the study, with what is painted on it, and go on with training."""
        image, panel = member.image, self.layer_panel
        if image is None:
            return
        trained, has_model = self.session.is_running, self.session.knows_a_model
        self.choose_image(image, own=True)
        panel.channels.tick(member.channels)
        kept = self.study.kept(member)
        if panel.chosen_scribbles() is None:
            if kept is None:
                self.new_scribbles()
            else:
                self._restore(image, kept)
                self.offers.withdraw(questions.kept_key(image))
        if has_model and self.study.shares:
            self.session.carry_model_to(image, member.channels)
        if trained:
            self.train()
        elif has_model and self.study.shares:
            self.update_once()

    def _take_in_hand(self, scribbles: Labels) -> None:
        """Add a scribble layer, unless that is done, choose it, and the brush of foreground."""
        if scribbles not in self.viewer.layers:
            self.viewer.add_layer(scribbles)
        self._list_layers()
        self.layer_panel.choose(self.layer_panel.scribbles, scribbles)
        self._use_choice()
        self.classes.choose(self.session.classes.classes[1].class_)

    def train(self) -> None:
        """Start, with the chosen image and scribbles."""
        self._train(once=False)

    def update_once(self) -> None:
        """Take up the strokes, answer, and stop."""
        self._train(once=True)

    def _train(self, once: bool) -> None:
        panel = self.layer_panel
        image, scribbles = panel.chosen_image(), panel.chosen_scribbles()
        if image is None:
            self._warn(NO_IMAGE)
        elif scribbles is None:
            self._warn("Press “New scribbles” and paint some background and some foreground.")
        else:
            goes_on = self.session.has_model and image is self.session.image
            self.study.use_channels(image, panel.channels.chosen)
            began = self._try(
                lambda: self.session.train(
                    image,
                    scribbles,
                    frame=self._frame(image),
                    channels=panel.channels.chosen,
                    once=once,
                    others=self.study.others(image),
                )
            )
            if not began:
                self._offer_switch(scribbles)  # the answer was to no avail
            else:
                self.progress_panel.begin(goes_on)
                self.offers.withdraw(questions.FORGOTTEN)
                self.guard.trained_on = scribbles
                for settled in (questions.SWITCH, questions.CLASSES):
                    self.offers.withdraw(settled)
                self.keeper.watch(image, scribbles)
                self.keeper.keep(scribbles)

    def _frame(self, image: Image) -> layers.Frame:
        """Return the frame on the screen, where the leading axes of an image count frames."""
        n = layers.frame_axes(image, self.layer_panel.slices_are_frames)
        return layers.step_of(self.viewer, image)[:n]

    def export(self, path: str | Path) -> None:
        """Write the prediction of the current image to a file, and its classes beside it.

        Raises
        ------
        InputError
            If there is no prediction, or the file cannot be written.
        """
        self.dialogs.export(Path(path))

    def ask_and_open(self) -> None:
        """Ask for a session file and go on with it."""
        self.dialogs.open_session()

    def _pause_or_resume(self) -> None:
        if self.session.state is SessionState.PAUSED:
            self.session.resume()
        else:
            self.progress_panel.say(PAUSING)
            self.session.pause()

    def _reset(self) -> None:
        image = self.session.image or self.layer_panel.chosen_image()
        self.time_machine.remember()
        shown = self.session.answers.copy() if self.session.has_answered else None
        aside = None if image is None else self.files.set_model_aside(image)
        self.session.reset()
        self._forget_numbers()
        if image is None or shown is None:
            return
        bring_back = weak(self._bring_back, image, shown, aside)
        self.offers.offer(questions.bring_forgotten_back(image, shown.layer, bring_back))

    def _bring_back(self, image: Image, shown: Shown, aside: Path | None) -> None:
        self.session.answers.put_back(shown)
        for gone in self.session.classes.removed:  # since then
            self.session.answers.erase(gone.class_)
        model = self.files.bring_back(image, aside)
        goes_on = "Train goes on from that model." if model else "Its model was not kept."
        self.progress_panel.say(f"Back again. {goes_on}")

    def _leave(self, image: Image, scribbles: Labels) -> None:
        """Take in hand what is about to be as it was, and forget what was said of now."""
        panel = self.layer_panel
        panel.choose(panel.image, image)
        panel.choose(panel.scribbles, scribbles)
        self._use_choice()
        self.offers.withdraw(questions.FORGOTTEN)
        self._forget_numbers()

    def _forget_numbers(self) -> None:
        """Say no longer how it went: that was of another image, or model."""
        self.coach.forget()
        self.progress_panel.clear()

    def _set_live(self, on: bool) -> None:
        self.session.set_live(on)
        self._remember(live=on)

    def _set_device(self, name: str) -> None:
        self.session.device = name
        self._remember(device=name)

    def _remember_folder(self, folder: str) -> None:
        self._remember(folder=folder)

    def _remember(self, **changes: Any) -> None:
        self.settings = replace(self.settings, **changes)
        self.settings.save()

    def _show_map(self, kind: MapKind, class_: int, on: bool) -> None:
        self.session.show_map((kind, class_), on)
        if on and not self.session.is_running:
            self.progress_panel.say("Press Train: then there is something to show.")

    # -------------------------------------------------------------- offers

    def _offer_kept(self, image: Image, saved: SavedSession) -> None:
        """Offer strokes that an earlier session left for an image."""
        restore = weak(self._restore, image, saved)
        older = next(iter(self.keeper.older(image)), None)
        restore_older = weak(self._restore, image, older, False)
        offer = questions.go_on_with_kept(image, saved, restore, older, restore_older)
        self.offers.offer(offer)

    def _restore(self, image: Image, saved: SavedSession, is_last: bool = True) -> None:
        if image in self.viewer.layers:
            self._try(lambda: self._take_in_hand(self.files.restore(image, saved, is_last)))

    def _offer_move(self, layer: Labels) -> None:
        """Offer to move a stroke from a layer that nobody trains on."""
        scribbles = self.layer_panel.chosen_scribbles()
        if scribbles is not None:
            move, leave = weak(self._move, layer, scribbles), partial(self.guard.ignore, layer)
            self.offers.offer(questions.move_stroke(layer, scribbles, move, leave))

    def _offer_look(self, question: str, where: tuple[int, ...]) -> None:
        """Offer to go to a stroke that the others contradict."""
        image, scribbles = self.session.image, self.session.scribbles
        if image is not None and scribbles is not None:
            show = weak(self.navigator.show, image, (*self.session.frame, *where))
            self.offers.offer(questions.look_at_doubtful(question, image, scribbles, show))

    def _offer_unlock(self, words: str, take_back: Any) -> None:
        """Offer to take back that a whole picture was locked, or unlocked."""
        image = self.session.image
        if image is not None:
            self.offers.offer(questions.unlock_again(words, image, take_back))

    def _move(self, source: Labels, target: Labels) -> None:
        guard.move_last_stroke(source, target)
        self.viewer.layers.selection.active = target

    # ------------------------------------------------------------- showing

    def _show_state(self, state: SessionState | None, message: str) -> None:
        self.train_panel.show_state(state)
        self.progress_panel.say(self._words_of(state, message))

    def _words_of(self, state: SessionState | None, message: str = "") -> str:
        if message and state is not SessionState.PREPARING:  # on which device is said below
            return message[:1].upper() + message[1:]
        if state is None:
            return self._what_next()
        if state is SessionState.TRAINING and self.session.image is not None:
            return f"Training on “{self.session.image.name}”. Keep painting where it is wrong."
        return WORDS[state]

    def _what_next(self) -> str:
        """Return what is to be done before Train can be pressed."""
        panel = self.layer_panel
        if panel.chosen_image() is None:
            return NO_IMAGE
        if panel.chosen_scribbles() is None:
            return "Press New scribbles, and paint some background and some foreground."
        if self.classes.n_painted > 1:
            return READY
        first, second = (one.name for one in self.session.classes.classes[:2])
        return f"Paint some “{first}” and some “{second}”, then press Train."

    def _advise(self, words: str) -> None:
        self.progress_panel.say(words or self._words_of(self.session.state))

    def _show_step(self, event: StepDone) -> None:
        self.progress_panel.show_step(event, self._device_in_words)

    def _show_answered(self, tile: PredictionReady) -> None:
        """Show which parts have an answer, in the slice on the screen, until all have."""
        answers, frame, image = self.session.answers, self.session.frame, self.session.image
        if image is None or answers.prediction is None:
            return
        plane, box = layers.plane_on_screen(self.viewer, image, frame)
        cells, share = answers.answered_cells(frame, plane), answers.answered(frame)
        self.progress_panel.answered.show_cells(cells, share, box)

    def _show_worker(self, ready: WorkerReady) -> None:
        # of its precision nothing: that differs between images and volumes
        self._device_in_words = ready.description.split(",")[0]
        self.train_panel.show_devices(ready.devices)
        if self.session.device not in ready.devices:  # chosen on another machine
            self.session.device = "auto"

    def _show_classes(self, classes: ClassTable) -> None:
        self.look_panel.show_classes(classes)

    def _keep_classes(self) -> None:
        scribbles = self.layer_panel.chosen_scribbles()
        if scribbles is not None:
            self.keeper.keep_classes(scribbles)

    def _count(self, scribbles: Labels, snapshot: ScribbleSnapshot) -> None:
        if scribbles is self.layer_panel.chosen_scribbles():
            self.session.meet(snapshot)
            n = self.classes.count(snapshot)
            self.study.count(self.keeper.owner(scribbles), snapshot, n)
            if not self.session.is_running:
                ready = "press Train." if snapshot.is_trainable else "paint another class too."
                self.progress_panel.say(f"{n} stroke{'s' * (n != 1)}: {ready}")

    def _warn(self, message: str) -> None:
        text = message[:1].upper() + message[1:]
        self.progress_panel.say(text)
        show_warning(text)

    def _try(self, action: Any) -> bool:
        """Do something; what is wrong with the input becomes a notification."""
        try:
            action()
        except InputError as error:
            self._warn(str(error))
            return False
        return True

    # -------------------------------------------------------------- layers

    def _list_layers(self, event: Any = None) -> None:
        panel = self.layer_panel
        before = panel.chosen_image(), panel.chosen_scribbles()
        images = [x for x in self.viewer.layers if layers.is_image(x)]
        scribbles = [x for x in self.viewer.layers if layers.is_scribble_layer(x)]
        panel.show_layers(panel.image, images, before[0], images[-1] if images else None)
        own = self._strokes_of(panel.chosen_image())
        panel.show_layers(panel.scribbles, scribbles, before[1], own[-1] if own else None)
        for layer in (*images, *scribbles):
            layer.events.name.disconnect(self._list_layers)
            layer.events.name.connect(self._list_layers)
        for layer in self.viewer.layers:
            if layers.role_of(layer) not in ("", "scribbles"):
                self.keys.bind(layer, paints=False)
        self.keeper.stay_with(scribbles)
        self.study.list_open(images)
        if event is not None and event.type == "removed":
            self.offers.withdraw_about(event.value)
            if event.value in before:  # what is left may be of another image
                self._use_chosen_image()
                return
        self._use_choice()

    def _follow_new_image(self, event: Any) -> None:
        """Choose an image that was just opened, unless it may be a channel of the chosen one."""
        new, chosen = event.value, self.layer_panel.chosen_image()
        if not layers.is_image(new) or self.session.is_running or chosen in (None, new):
            return
        if layers.spatial_shape(new) != layers.spatial_shape(chosen):
            self.choose_image(new)
            layers.bring_into_view(self.viewer, new)

    def _use_choice(self) -> None:
        """Ask what this image raises, keep its strokes, look for those of before."""
        panel = self.layer_panel
        image, scribbles = panel.chosen_image(), panel.chosen_scribbles()
        images = [x for x in self.viewer.layers if layers.is_image(x) and x is not image]
        alike = [
            x
            for x in images
            if image is not None and layers.spatial_shape(x) == layers.spatial_shape(image)
        ]
        panel.channels.show_layers(alike)
        panel.show_rows(channels=bool(alike), frames=image is not None and image.ndim == 3)
        self.guard.scribbles = scribbles
        self.session.choose(scribbles)
        self.study.follow(image)
        if image is None:
            self._counted = None
            self.classes.count(None)
            self.time_machine.look_at(None)
            if self._guided is not None and not self.session.is_running:
                self._forget_numbers()
                self.progress_panel.say(NO_IMAGE)
            self._guided = None
            return
        self.lock_panel.show_dimensions(
            image.ndim - layers.frame_axes(image, panel.slices_are_frames)
        )
        self.session.answers.locks.adopt(image)
        fitting = scribbles if scribbles is not None and layers.fits(scribbles, image) else None
        self.keeper.look_for(image, fitting)  # before anything is kept
        if fitting is not None and layers.role_of(fitting) == "scribbles":
            if self.keys.bind(fitting):
                fitting.events.selected_label.connect(self._follow_label)
            if self.keeper.owner(fitting) not in self.viewer.layers:
                self.keeper.watch(image, fitting)
                layers.put_below(self.viewer, image, fitting)  # it may have been opened anew
        if fitting is not None:
            self._classes_of = weakref.ref(image), image.name
        if fitting is not self._counted:
            self._counted = fitting
            self._count_anew(image, fitting)
            if fitting is not None:
                self.classes.follow(fitting)  # its brush may be that of an earlier dock
        self._offer_switch(fitting)
        choice = id(image), id(scribbles)
        if choice != self._guided and not self.session.is_running:
            if image is not self.session.image:
                self._forget_numbers()
                self.offers.withdraw(questions.LOCKED)
            self.progress_panel.say(self._what_next())
        elif choice != self._guided:
            self.progress_panel.say(self._words_of(self.session.state))
        self._guided = choice
        self.time_machine.look_at(image)

    def _count_anew(self, image: Image, scribbles: Labels | None) -> None:
        """Count what is on a layer, whoever painted it; of what is no scribble Train will say."""
        snapshot = None
        if scribbles is not None:
            with suppress(InputError):
                snapshot = layers.take_snapshot(scribbles, image, 0)
        if snapshot is not None and layers.role_of(scribbles) == "scribbles":
            self.session.meet(snapshot)
        n = self.classes.count(snapshot)
        if snapshot is not None:
            self.study.count(image, snapshot, n)

    def _follow_label(self, event: Any) -> None:
        self.classes.follow(event.source)

    def _use_chosen_image(self, own_alone: bool = False) -> None:
        """Choose the scribbles of the image that was chosen, or none."""
        panel = self.layer_panel
        image = panel.chosen_image()
        own = self._strokes_of(image, own_alone)
        if own:
            panel.choose(panel.scribbles, own[-1])
        else:
            panel.scribbles.setCurrentIndex(-1)
        self._use_choice()

    def _strokes_of(self, image: Image | None, alone: bool = False) -> list[Labels]:
        """Return the layers with strokes of an image; without `alone`, or of nobody's."""

        def are_its(scribbles: Labels) -> bool:
            owner = self.keeper.owner(scribbles)
            if owner is not image and (alone or owner in self.viewer.layers):
                return False
            return layers.fits(scribbles, image) and self.keeper.belongs(scribbles, image)

        if image is None:
            return []
        return [x for x in self.viewer.layers if layers.is_scribble_layer(x) and are_its(x)]

    def _use_chosen_scribbles(self) -> None:
        """Keep strokes of the layer that the user has chosen, whoever made it."""
        self._use_choice()
        image, scribbles = self.layer_panel.chosen_image(), self.layer_panel.chosen_scribbles()
        if image is not None and scribbles is not None and layers.fits(scribbles, image):
            self.keys.bind(scribbles)
            self.keeper.watch(image, scribbles)

    def _offer_switch(self, scribbles: Labels | None) -> None:
        """Offer to train on what is chosen, where something else is trained on."""
        trained_on = self.session.scribbles if self.session.is_running else None
        if scribbles is None or trained_on is None or scribbles is trained_on:
            self.offers.withdraw(questions.SWITCH)
        else:
            train = weak(self.train)
            self.offers.offer(questions.train_on_chosen(scribbles, trained_on, train))
