"""Frames on a pipe: what goes in comes out, and nothing else does."""

from __future__ import annotations

import dataclasses
import io
import json
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from napari_msseg.commands import (
    COMMANDS,
    REPLIES,
    AskSpots,
    ForgetClasses,
    ImageMapped,
    KeepModel,
    PauseSession,
    RankImages,
    ResumeSession,
    ShareCompanion,
    SharedImage,
    ShowMaps,
    ShowView,
    StartSession,
    StopSession,
    SubmitScribbles,
    WorkerReady,
)
from napari_msseg.config import (
    ContrastiveConfig,
    PairMean,
    Scribble2LabelConfig,
    SessionConfig,
    TrainConfig,
    default_config,
)
from napari_msseg.errors import InputError
from napari_msseg.events import (
    Failed,
    HeldOutScored,
    ImageRanked,
    MapKind,
    MapReady,
    ModelKept,
    Notice,
    PredictionReady,
    SessionState,
    SpotsFound,
    StateChanged,
    StepDone,
)
from napari_msseg.wire import MAX_HEADER, Codec, WireError

INDICES = np.array([0, 3, 2**40], np.int64)
CLASSES = np.array([0, 1, 253], np.uint8)
SHARED = SharedImage(
    path='/dev/shm/é "quoted"', dtype="<u2", shape=(5, 12, 3), axes="ZYX", spacing=(2.5, 0.1, 0.1)
)
ODD_CONFIG = SessionConfig(
    train=TrainConfig(
        s2l=Scribble2LabelConfig(
            pixel=ContrastiveConfig(0.1, 0.2, 2, samples=9, mean=PairMean.PAIRS),
            confidence_thresholds=(0.7, 0.9),
        ),
        learning_rate=1e-5,
    ),
    device="cuda:1",
    max_steps=None,
    max_seconds=0.1 + 0.2,
    rest_after=7,
)


def _start(config: SessionConfig = ODD_CONFIG) -> StartSession:
    return StartSession(
        session=4,
        image=SHARED,
        config=config,
        keep_model=True,
        indices=INDICES,
        classes=CLASSES,
        generation=9,
    )


def _prediction(**changes: Any) -> PredictionReady:
    classes = np.arange(6, dtype=np.uint8).reshape(2, 3)
    values = {"start": (4, 8), "classes": classes, "probabilities": None, "step": 12, "last": True}
    return PredictionReady(session=1, generation=2, **{**values, **changes})


MESSAGES = [
    _start(),
    _start(default_config(3)),
    SubmitScribbles(session=1, shape=(4, 6), indices=INDICES, classes=CLASSES, generation=3),
    SubmitScribbles(
        session=1, shape=(4, 6), indices=INDICES[:0], classes=CLASSES[:0], generation=3
    ),
    PauseSession(session=2),
    ResumeSession(session=2),
    StopSession(session=2**40),
    WorkerReady(devices=("auto", "cpu"), description="cpu, bfloat16"),
    WorkerReady(devices=(), description=""),
    ImageMapped(session=0),
    *(StateChanged(session=1, generation=0, state=state) for state in SessionState),
    StateChanged(session=1, generation=0, state=SessionState.FAILED, message="ärger\nüber alles"),
    StepDone(
        session=1,
        generation=2,
        step=3,
        seconds=1e-9,
        total=0.1,
        scribble=-0.0,
        pseudo=1e30,
        pixel=0.2,
        patch=3.0,
    ),
    _prediction(),
    _prediction(start=(0, 0, 7), classes=np.zeros((1, 2, 3), np.uint8), last=False),
    _prediction(probabilities=np.linspace(0, 1, 18, dtype=np.float16).reshape(3, 2, 3)),
    _prediction(classes=np.zeros((0, 3), np.uint8)),
    dataclasses.replace(_start(), model_path="/tmp/é.safetensors"),
    ForgetClasses(session=1, classes=(2, 5)),
    ShowView(session=1, start=(0, 3, 4), stop=(1, 30, 40)),
    ShowMaps(session=1),
    ShowMaps(session=1, uncertainty=True, pseudo_labels=True, probabilities=(0, 2)),
    AskSpots(session=3),
    RankImages(session=3, names=("a, b", "/tmp/é.tif")),
    ShareCompanion(session=1, name="b", image=SHARED, indices=INDICES, classes=CLASSES),
    ImageRanked(session=1, generation=2, name="b", uncertainty=0.25),
    ImageRanked(session=1, generation=2, name="c", error="it is 3D"),
    KeepModel(session=3, path='/tmp/"x"'),
    ModelKept(session=3, generation=1, path="/tmp/x", error="full"),
    MapReady(
        session=1,
        generation=2,
        kind=MapKind.PSEUDO_LABELS,
        class_=0,
        start=(4, 8),
        values=np.arange(6, dtype=np.uint8).reshape(2, 3),
    ),
    SpotsFound(
        session=1,
        generation=2,
        positions=np.zeros((0, 3), np.int64),
        scores=np.zeros(0, np.float32),
    ),
    HeldOutScored(
        session=1,
        generation=2,
        confusion=np.eye(2, dtype=np.int64),
        log_loss=0.1,
        n_pieces=np.array([3, 0]),
        is_cut=np.array([True, False]),
        positions=np.array([[1, 2]]),
        painted=np.array([0]),
        predicted=np.array([1]),
    ),
    Notice(session=1, generation=2, message="42 pixels are NaN"),
    Failed(session=1, generation=2, message="no", details="Traceback …\n  File …"),
    Failed(session=1, generation=2, message="no"),
]
CODEC = Codec((*COMMANDS, *REPLIES))


def _bytes(message: Any) -> bytes:
    return b"".join(bytes(buffer) for buffer in Codec.encode(message))


def _frame(header: Any, payload: bytes = b"") -> bytes:
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<I", len(encoded)) + encoded + payload


def _same(a: Any, b: Any) -> bool:
    """Whether two messages hold the same types and values, field by field."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b)
    if dataclasses.is_dataclass(a):
        return all(_same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    return a == b


def test_every_message_type_has_an_example_here():
    assert {type(m) for m in MESSAGES} == {*COMMANDS, *REPLIES}


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_a_message_comes_out_as_it_went_in(message):
    stream = io.BytesIO(_bytes(message))
    assert _same(CODEC.read(stream), message)
    assert stream.read() == b""


def test_messages_in_one_stream_come_out_one_by_one_and_then_nothing():
    stream = io.BytesIO(b"".join(map(_bytes, MESSAGES)))
    for message in MESSAGES:
        assert _same(CODEC.read(stream), message)
    assert CODEC.read(stream) is None


@dataclass(frozen=True, eq=False)
class Carrier:
    array: np.ndarray


ARRAYS = {
    "big-endian": np.arange(5, dtype=">i4"),
    "bool": np.array([True, False]),
    "float16": np.array([[0.5, np.inf]], np.float16),
    "complex": np.array([1 + 2j]),
    "zero-dimensional": np.array(7, np.uint8),
    "empty": np.zeros((3, 0, 2), np.float64),
    "strided": np.arange(24, dtype=np.int16).reshape(4, 6)[::2, ::-3],
    "transposed": np.arange(24, dtype=np.uint32).reshape(2, 3, 4).transpose(2, 0, 1),
    "read-only": np.frombuffer(b"abcd", np.uint8),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_keep_dtype_shape_and_values(name):
    array = ARRAYS[name]
    back = Codec([Carrier]).read(io.BytesIO(_bytes(Carrier(array)))).array
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(back, array)


def test_a_not_a_number_loss_survives():
    step = StepDone(
        session=1,
        generation=0,
        step=1,
        seconds=0.0,
        total=float("nan"),
        scribble=float("inf"),
        pseudo=0.0,
        pixel=0.0,
        patch=0.0,
    )
    back = CODEC.read(io.BytesIO(_bytes(step)))
    assert np.isnan(back.total)
    assert back.scribble == float("inf")


def test_an_empty_stream_is_the_end_and_no_error():
    assert CODEC.read(io.BytesIO()) is None


@pytest.mark.parametrize("end", [1, 3, 4, 5, 40, -1, -12])
def test_a_stream_that_ends_inside_a_message_is_an_error(end):
    with pytest.raises(WireError, match="ended inside"):
        CODEC.read(io.BytesIO(_bytes(_prediction())[:end]))


@pytest.mark.parametrize("size", [MAX_HEADER + 1, 2**32 - 1])
def test_a_huge_header_is_refused_before_it_is_read(size):
    stream = io.BytesIO(struct.pack("<I", size) + b"{" * 100)
    with pytest.raises(WireError, match="not a message"):
        CODEC.read(stream)
    assert stream.tell() == 4


def test_text_printed_into_the_pipe_is_no_message():
    with pytest.raises(WireError):
        CODEC.read(io.BytesIO(b"Downloading weights: 100%\n" * 50))


EMPTY = {"type": "PauseSession", "fields": {"session": 1}, "arrays": []}


@pytest.mark.parametrize(
    "header",
    [
        b"\xff\xfe\x00",
        b"",
        b"not json",
        b"[]",
        b"7",
        b"null",
        b'"text"',
        {},
        {**EMPTY, "type": "os.system"},
        {**EMPTY, "type": ["PauseSession"]},
        {**EMPTY, "fields": 7},
        {**EMPTY, "fields": None},
        {**EMPTY, "arrays": 7},
        {**EMPTY, "arrays": [7]},
        {**EMPTY, "arrays": [{"name": "x"}]},
        {"type": "PauseSession", "fields": {"session": 1}},
    ],
    ids=str,
)
def test_a_header_that_describes_no_message_of_ours_is_refused(header):
    with pytest.raises(WireError):
        CODEC.read(io.BytesIO(_frame(header)))


def test_a_type_that_this_side_does_not_know_is_refused():
    replies_only = Codec(REPLIES)
    with pytest.raises(WireError, match="PauseSession"):
        replies_only.read(io.BytesIO(_bytes(PauseSession(session=1))))


@pytest.mark.parametrize(
    "array",
    [
        {"dtype": "|O", "shape": [1]},
        {"dtype": "|O8", "shape": [1]},
        {"dtype": "nonsense", "shape": [1]},
        {"dtype": [["a", "|O"]], "shape": [1]},
        {"dtype": "|u1", "shape": [-8]},
        {"dtype": "|u1", "shape": [9]},
        {"dtype": "|u1", "shape": "8"},
        {"dtype": "|u1", "shape": None},
        {"dtype": "|V0", "shape": [8]},
    ],
    ids=str,
)
def test_an_array_that_cannot_be_is_refused(array):
    header = {"type": "Carrier", "fields": {}, "arrays": [{"name": "array", **array}]}
    with pytest.raises(WireError):
        Codec([Carrier]).read(io.BytesIO(_frame(header, bytes(8))))


def test_an_array_of_objects_is_never_unpickled():
    objects = Carrier(np.array([print], dtype=object))
    with pytest.raises((WireError, ValueError, TypeError)):
        Codec([Carrier]).read(io.BytesIO(_bytes(objects)))


REFUSED = (WireError, InputError)
"""Both are what a reader of the stream expects; anything else would end its thread in silence."""


@pytest.mark.parametrize(
    "fields",
    [
        {"session": 1, "extra": 2},
        {"session": 1, "__class__": "x"},
        {},
    ],
    ids=str,
)
def test_unknown_and_missing_fields_are_refused(fields):
    with pytest.raises(REFUSED):
        CODEC.read(io.BytesIO(_frame({**EMPTY, "fields": fields})))


def test_an_unknown_state_is_refused():
    fields = {"session": 1, "generation": 0, "state": "dancing"}
    with pytest.raises((*REFUSED, ValueError)):
        CODEC.read(io.BytesIO(_frame({"type": "StateChanged", "fields": fields, "arrays": []})))


def test_a_configuration_is_checked_when_it_arrives():
    header, arrays = _split(_bytes(_start()))
    header["fields"]["config"]["train"]["batch_size"] = 0
    with pytest.raises(REFUSED, match="batch_size"):
        CODEC.read(io.BytesIO(_frame(header, arrays)))


def test_an_unknown_key_deep_in_a_configuration_is_refused():
    header, arrays = _split(_bytes(_start()))
    header["fields"]["config"]["train"]["s2l"]["pixel"]["colour"] = "red"
    with pytest.raises(REFUSED, match="colour"):
        CODEC.read(io.BytesIO(_frame(header, arrays)))


def _split(frame: bytes) -> tuple[dict[str, Any], bytes]:
    length = struct.unpack("<I", frame[:4])[0]
    return json.loads(frame[4 : 4 + length]), frame[4 + length :]
