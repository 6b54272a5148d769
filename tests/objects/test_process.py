"""The process that finds objects: the real one, over its pipes."""

from __future__ import annotations

import queue

import numpy as np
import pytest

from napari_msseg.engine.client import WorkerClient
from napari_msseg.engine.shared_image import share
from napari_msseg.objects.config import ObjectConfig
from napari_msseg.objects.messages import (
    COMMANDS,
    PROCESS,
    REPLIES,
    FindObjects,
    ObjectsFailed,
    ObjectsFound,
)
from napari_msseg.objects.process import ObjectFinder
from napari_msseg.volume import Volume


def asked(mask, number=1, image=None, goes_on=False, **config):
    return FindObjects(
        number=number,
        mask=np.asarray(mask, np.uint8),
        spacing=(0.5, 2.0),
        unit="um",
        config=ObjectConfig(**config),
        image=image,
        goes_on=goes_on,
    )


@pytest.fixture
def conversation():
    """Speak to a real process: ``conversation(question)`` returns the answer."""
    heard: queue.SimpleQueue = queue.SimpleQueue()
    client = WorkerClient(heard.put, lambda *gone: heard.put(gone), PROCESS, COMMANDS, REPLIES)

    def ask(question):
        client.send(question)
        return heard.get(timeout=60)

    yield ask
    client.close()
    assert client.process.poll() == 0  # by itself, as soon as its input ended


MASK = [[1, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 1]]


def test_the_process_finds_measures_and_goes_on(conversation):
    image = share(Volume(np.arange(12, dtype=np.float32).reshape(3, 4), "YX"))
    found = conversation(asked(MASK, image=image))
    assert isinstance(found, ObjectsFound)
    assert found.numbers.tolist() == [[1, 1, 0, 0], [0, 0, 0, 2], [0, 0, 0, 2]]
    table = found.table()
    assert table.columns["area"].tolist() == [2, 2]
    assert table.columns["mean_0"].tolist() == [0.5, 9]
    assert table.unit == "um"
    again = conversation(asked([MASK[0], [0] * 4, [1] * 4], number=2, goes_on=True))
    assert again.number == 2
    assert "mean_0" in again.table().columns  # it remembers the image


def test_objects_keep_their_numbers_and_their_rows_stay_with_them():
    finder = ObjectFinder()
    finder.answer(asked([[0, 0, 0, 0], [0, 0, 0, 0], [2, 0, 0, 2]]))
    found = finder.answer(asked([[1, 0, 0, 0], [0, 0, 0, 0], [2, 0, 2, 2]], goes_on=True))
    assert found.numbers.tolist() == [[3, 0, 0, 0], [0, 0, 0, 0], [1, 0, 2, 2]]
    table = found.table()
    assert table.columns["object"].tolist() == [1, 2, 3]
    assert table.columns["class"].tolist() == [2, 2, 1]
    assert table.columns["area"].tolist() == [1, 2, 1]


def test_many_objects_need_larger_numbers():
    mask = np.zeros((600, 600), np.uint8)
    mask[::2, ::2] = 1
    found = ObjectFinder().answer(asked(mask))
    assert found.numbers.dtype == np.int32
    assert found.numbers.max() == 90_000


def test_a_question_that_cannot_be_answered_is_not_the_end(conversation):
    nowhere = share(Volume(np.zeros((2, 2), np.uint8), "YX"))
    failed = conversation(asked(MASK, image=nowhere))
    assert isinstance(failed, ObjectsFailed)
    assert isinstance(conversation(asked(MASK, number=2)), ObjectsFound | ObjectsFailed)


def test_the_number_of_an_object_that_is_gone_is_not_given_again():
    finder = ObjectFinder()
    one, two, other = [[1, 0, 0, 0, 0]], [[1, 0, 1, 0, 0]], [[1, 0, 0, 0, 1]]
    found = [finder.answer(asked(m, goes_on=True)).numbers.max() for m in (two, one, other)]
    assert found == [2, 1, 3]
