"""`kill -9` at a random moment, fifty times: at most the unfinished stroke is gone.

Run as a script, this file is what is killed: a process that has imported everything once forks
a painter for each kill. A painter is napari without a canvas, with the dock and no worker; it says
the number of every stroke that is finished, and paints until it is killed.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from functools import partialmethod
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Labels
from qtpy.QtWidgets import QApplication

from napari_msseg._napari import layers, worker_host
from napari_msseg._napari.widget import ScribbleWidget
from napari_msseg.autosave import VARIABLE, Autosave
from napari_msseg.classes import ClassTable
from napari_msseg.saved_session import fingerprint

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="nothing forks there")

KILLS = 50
FEW = 5
"""So many strokes at most are finished before a kill is due, …"""
A_MOMENT = 0.05
"""… which comes so many seconds later at most: a stroke and its way to the disk are shorter."""
MOST_STROKES = 200
BRUSH = 3
SHAPE = (64, 80)
PIXELS = np.random.default_rng(0).integers(0, 255, SHAPE).astype(np.uint8)
THIRD = "Mitochondria"


def paint_stroke(scribbles: Any, number: int) -> None:
    """Paint a stroke as the brush does, which is another one for each number."""
    row, column = (7 * number) % SHAPE[0], (11 * number) % (SHAPE[1] - 6)
    with scribbles.block_history():
        for i in range(6):
            scribbles.paint((row, column + i), 1 + number % 3)


def name_of(number: int) -> str:
    """Return what the first class is called once a stroke is finished."""
    return f"Nuclei {number // 5}"


# ---------------------------------------------------------------------- who is killed


class Deaf:
    """Takes the place of `WorkerClient`: nobody trains here."""

    def __init__(self, *_: Any) -> None:
        self.is_alive = True

    def send(self, command: Any) -> None:
        pass

    def close(self) -> None:
        self.is_alive = False


def paint_until_killed(output: IO[str]) -> None:
    """Paint one stroke after the other, and say its number when the brush is released."""
    application = QApplication([])
    viewer = ViewerModel()
    dock = ScribbleWidget(viewer)
    viewer.add_image(PIXELS, name="cells")
    dock.new_scribbles()
    dock.classes.add()
    dock.classes.rename(2, THIRD)
    dock.classes.rename(1, name_of(0))
    dock.layer_panel.chosen_scribbles().brush_size = BRUSH
    for number in range(1, MOST_STROKES):
        paint_stroke(dock.layer_panel.chosen_scribbles(), number)
        if name_of(number) != name_of(number - 1):
            dock.classes.rename(1, name_of(number))
        print(number, file=output, flush=True)
        application.processEvents()


def serve(folder: Path) -> None:
    """Fork painters and kill them; say how many strokes each had finished."""
    image = ViewerModel().add_image(PIXELS)  # what napari does once, it does now
    paint_stroke(layers.new_scribbles(image, ClassTable.default()), 1)
    rng = random.Random(0)
    for kill in range(KILLS):
        reading, writing = os.pipe()
        painter = os.fork()
        if painter == 0:
            os.close(reading)
            try:
                os.environ[VARIABLE] = str(folder / str(kill))
                paint_until_killed(os.fdopen(writing, "w"))
            finally:
                os._exit(1)
        os.close(writing)
        with os.fdopen(reading) as said:
            lines = [said.readline() for _ in range(rng.randint(1, FEW))]
            time.sleep(rng.uniform(0, A_MOMENT))
            os.kill(painter, signal.SIGKILL)
            _, status = os.waitpid(painter, 0)
            finished = "".join([*lines, said.read()]).split()
        print(json.dumps({"finished": finished, "signal": os.WTERMSIG(status)}), flush=True)


if __name__ == "__main__":
    worker_host.WorkerClient = Deaf
    # A painter waits a moment for a slow disk, no longer. Here a stroke is finished when it lies
    # there, however busy this machine is with other tests.
    Autosave.keep = partialmethod(Autosave.keep, wait_seconds=60.0)
    serve(Path(sys.argv[1]))


# ------------------------------------------------------------------ what is left of it


@pytest.fixture(scope="module")
def kills(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the killed painters had finished, and what is found of it."""
    folder = tmp_path_factory.mktemp("killed")
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen"}
    command = [sys.executable, __file__, str(folder)]
    output = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True, timeout=240
    ).stdout
    told = [json.loads(line) for line in output.splitlines()]
    key = fingerprint(PIXELS)
    for kill, one in enumerate(told):
        one["found"] = Autosave(folder / str(kill) / "sessions").find(key)
        one["finished"] = int(one["finished"][-1]) if one["finished"] else 0
    return told


@pytest.fixture(scope="module")
def painted() -> list[Any]:
    """What so many strokes look like."""
    layer = Labels(np.zeros(SHAPE, np.uint8))
    layer.brush_size = BRUSH
    pictures = [np.array(layer.data)]
    for number in range(1, MOST_STROKES):
        paint_stroke(layer, number)
        pictures.append(np.array(layer.data))
    return pictures


def test_they_were_killed_while_they_painted(kills):
    assert [one["signal"] for one in kills] == [signal.SIGKILL] * KILLS
    assert min(one["finished"] for one in kills) >= 1


def test_every_finished_stroke_is_on_the_disk_and_at_most_the_unfinished_one_is_gone(
    kills, painted
):
    for one in kills:
        found, finished = one["found"].scribbles.labels(), one["finished"]
        assert any(np.array_equal(found, painted[n]) for n in (finished, finished + 1))


def test_the_class_table_is_there_too_with_its_newest_name(kills):
    for one in kills:
        names = [c.name for c in one["found"].classes]
        possible = {name_of(one["finished"]), name_of(one["finished"] + 1)}
        assert names[::2] == ["Background", THIRD]
        assert names[1] in possible
