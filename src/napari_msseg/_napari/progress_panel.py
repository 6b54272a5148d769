"""What it is doing: in plain words, as numbers, and as a curve."""

from __future__ import annotations

import math
from typing import Any

import pyqtgraph
from qtpy.QtCore import QSize, Qt
from qtpy.QtWidgets import QGroupBox, QLabel, QSizePolicy, QVBoxLayout

from napari_msseg._napari.coverage_map import CoverageMap
from napari_msseg._napari.tool_tips import broken
from napari_msseg.advice import dice_of, mean_dice
from napari_msseg.events import HeldOutScored, StepDone

POINTS = 400
"""Steps that the curves show."""
SMOOTHING = 0.1
"""Weight of the newest loss in the curve and of the newest rate in the status line."""
REDRAW_EVERY = 4
"""Steps between two drawings of the curve: it is there to be glanced at."""
PADDING = 10
"""What napari's style leaves free around a text, above and below."""
FEWEST_STEPS = 10
"""The curve of fewer takes as much room as that of so many."""
PLOT_HEIGHT = 100
LEAST_LOSS = 1e-4
"""A logarithm needs one."""
ROOM, EDGE = 0.08, 7
"""Left free above and below the curves, as a share, and above and to the right of axes, in
pixels: or numbers and letters are cut."""
LOSS_COLOUR, DICE_COLOUR = "#E69F00", "#56B4E9"


class ProgressPanel(QGroupBox):  # type: ignore[misc]
    """Steps and device in numbers, error (loss) and agreement (held-out Dice) as curves.

    Its `status`, in words, is laid out where it is seen however far the dock is scrolled.
    """

    def __init__(self) -> None:
        super().__init__("3 · Watch")
        self.status = _Lines("Choose an image, press New scribbles, and paint.", 3)
        self.status.setAccessibleName("Status")
        self.numbers = _Lines("", 2)
        self.numbers.setToolTip(
            "The error is the loss that training makes smaller: how far the network is from "
            "strokes and pseudo-labels. It falls as it learns, and jumps up when strokes are new."
        )
        self.score = _Lines("", 3)
        self.score.setToolTip(
            "Strokes are left out in turn and predicted from the others (held-out Dice, 1 at "
            "best): how well they agree. "
            "It says nothing of places where nobody has painted. Newest strokes are compared with "
            "what was on the screen before anything learned from them."
        )
        self.plot = _Plot()
        self.answered = CoverageMap()
        box = QVBoxLayout(self)
        for part in (self.numbers, self.answered, self.score, self.plot):
            box.addWidget(part)
        self.clear()

    def begin(self, goes_on: bool) -> None:
        """Make ready for a session, which may go on from the weights of the one before."""
        if not goes_on:
            self.clear()
        self._before = self._steps[-1] if self._steps else 0
        self._last_seconds = 0.0

    def clear(self) -> None:
        """Forget curves and numbers."""
        self._before = 0
        """Steps of sessions before from which this one goes on."""
        self._steps: list[int] = []
        self._losses: list[float] = []
        self._scores: list[tuple[int, float]] = []
        self._last_seconds = 0.0
        self._rate = 0.0
        self.plot.show_losses([], [])
        self.plot.show_scores([], [])
        self._scored = self._agreed = ""
        self.answered.clear()
        self.numbers.setText("Numbers and curves come with the first step.")
        self.score.setText("")
        self._make_room(False)

    def _make_room(self, wanted: bool) -> None:
        """Show score and plot, or leave their room to what is below: screens are small."""
        for part in (self.score, self.plot):
            part.setVisible(wanted)

    def show_step(self, event: StepDone, device: str) -> None:
        """Add a step to the curve and say where we are."""
        previous = self._losses[-1] if self._losses else event.total
        self._losses.append(previous + SMOOTHING * (event.total - previous))
        step = self._before + event.step
        self._steps.append(step)
        del self._losses[:-POINTS], self._steps[:-POINTS]
        duration = max(1e-3, event.seconds - self._last_seconds)
        self._last_seconds = event.seconds
        newest = 1 / duration
        self._rate += (SMOOTHING if self._rate else 1.0) * (newest - self._rate)
        if len(self._steps) == 1:
            self._make_room(True)
        if len(self._steps) == 1 or step % REDRAW_EVERY == 0:
            self._draw(step, event.memory, device)

    def show_score(self, event: HeldOutScored) -> None:
        """Show how well strokes agree, and a point of the curve."""
        mean = mean_dice(dice_of(event.confusion))
        if math.isnan(mean):
            return
        step = self._steps[-1] if self._steps else 0
        self._scores = [s for s in self._scores if s[0] >= (self._steps or [0])[0]]
        self._scores.append((step, mean))
        self._draw_scores(step)
        n = int(event.n_pieces.sum())
        self._scored = f"{n} strokes, each predicted from the others: Dice {mean:.2f}"
        self._say_scores()

    def show_agreement(self, share: float) -> None:
        """Show how much of the newest strokes was right before they were painted."""
        self._agreed = f"Newest strokes: {share:.0%} was right already"
        self._say_scores()

    def _say_scores(self) -> None:
        self.score.setText("\n".join(line for line in (self._scored, self._agreed) if line))

    def say(self, text: str) -> None:
        """Show a line of plain words."""
        self.status.setText(text)
        self.status.setToolTip(broken(text))

    def _draw(self, step: int, memory: int, device: str) -> None:
        self.plot.show_losses(self._steps, self._losses)
        if self._scores:
            self._draw_scores(step)
        used = f" · {memory / 2**30:.1f} GB" if memory else ""
        self.numbers.setText(
            f"step {step} · {self._rate:.1f} steps/s · error {self._losses[-1]:.3f}\n{device}{used}"
        )

    def _draw_scores(self, step: int) -> None:
        """Draw the scores as a line that goes on to the present step."""
        points = [*self._scores, (step, self._scores[-1][1])]
        self.plot.show_scores([p[0] for p in points], [p[1] for p in points])


class _LogAxis(pyqtgraph.AxisItem):  # type: ignore[misc]
    """Says 10^v at v: few ticks, where pyqtgraph's own logarithmic axis has them all overlap."""

    def tickStrings(self, values: list[float], scale: float, spacing: float) -> list[str]:
        for digits in (2, 3, 4):  # neighbours must not read the same
            words = [f"{10**v:.{digits}g}" for v in values]
            if len(set(words)) == len(words):
                break
        return words


class _Plot(pyqtgraph.PlotWidget):  # type: ignore[misc]
    """Loss to the left-hand scale, held-out Dice to the right-hand one, from 0 to 1."""

    def __init__(self) -> None:
        super().__init__(background=None, axisItems={"left": _LogAxis("left")})
        self.setFixedHeight(PLOT_HEIGHT)
        self.setMouseEnabled(x=False, y=False)
        self.hideButtons()
        self.setMenuEnabled(False)
        self.setToolTip(
            "By training step: the error that is left (solid, left; the loss, less is better) and "
            "how well strokes agree (dashed, right; held-out Dice, 1 is best)"
        )
        item = self.getPlotItem()
        item.showAxis("right")
        for side, words, colour in (
            ("left", "error", LOSS_COLOUR),
            ("right", "agree", DICE_COLOUR),
        ):
            axis = item.getAxis(side)
            axis.enableAutoSIPrefix(False)
            axis.setLabel(words, color=colour)
        item.layout.setContentsMargins(0, EDGE, EDGE, 0)
        item.getAxis("right").setTicks([[(0, "0"), (0.5, ".5"), (1, "1")]])
        self._losses = self.plot(pen=pyqtgraph.mkPen(LOSS_COLOUR, width=2))
        self._scale = pyqtgraph.ViewBox(enableMenu=False)
        self._scale.setMouseEnabled(x=False, y=False)
        self._scale.setYRange(0, 1, padding=ROOM)
        item.scene().addItem(self._scale)
        item.getAxis("right").linkToView(self._scale)
        self._scale.setXLink(item)
        dashed = pyqtgraph.mkPen(DICE_COLOUR, width=2, style=Qt.PenStyle.DashLine)
        self._scores = pyqtgraph.PlotDataItem(pen=dashed)
        self._scale.addItem(self._scores)
        item.vb.sigResized.connect(self._fit)
        self._fit()

    def wheelEvent(self, event: Any) -> None:
        """Leave the wheel to what is scrolled: axes would take it."""
        event.ignore()

    def _fit(self) -> None:
        self._scale.setGeometry(self.getPlotItem().vb.sceneBoundingRect())

    def show_losses(self, steps: list[int], losses: list[float]) -> None:
        """Draw the loss, on a logarithmic scale: single steps may lose a thousand times as much."""
        self._losses.setData(steps, [math.log10(max(loss, LEAST_LOSS)) for loss in losses])
        if steps:
            self.setXRange(steps[0], max(steps[-1], steps[0] + FEWEST_STEPS), padding=0)

    def show_scores(self, steps: list[int], scores: list[float]) -> None:
        """Draw the held-out Dice."""
        self._scores.setData(steps, scores)


class _Lines(QLabel):  # type: ignore[misc]
    """A label that keeps its height, whatever is written into it."""

    def __init__(self, text: str, lines: int) -> None:
        super().__init__(text)
        self._lines = lines
        self.setWordWrap(True)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.setAlignment(Qt.AlignmentFlag.AlignTop)

    def hasHeightForWidth(self) -> bool:
        return False

    def sizeHint(self) -> QSize:
        """Ask for so many lines, in whatever font the window has."""
        return QSize(100, self.fontMetrics().lineSpacing() * self._lines + PADDING)

    def minimumSizeHint(self) -> QSize:
        return self.sizeHint()
