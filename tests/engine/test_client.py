"""The client of a worker: starts it, hears it, sees it die, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import psutil
import pytest

from napari_msseg.commands import ImageMapped, PauseSession, StopSession, SubmitScribbles
from napari_msseg.engine import WorkerClient
from napari_msseg.engine import client as client_module

SECONDS = 60


def stub(body: str) -> list[str]:
    """A worker that is quick to start: a few lines that can `say` messages."""
    head = """
        import sys, time, signal
        from napari_msseg.wire import Codec
        from napari_msseg.commands import *
        def say(message):
            for buffer in Codec.encode(message):
                sys.stdout.buffer.write(buffer)
            sys.stdout.buffer.flush()
    """
    return [sys.executable, "-c", textwrap.dedent(head) + textwrap.dedent(body)]


LISTEN = "sys.stdin.buffer.read()"
SAY_AND_LISTEN = f"say(ImageMapped(session=5))\n{LISTEN}"


def test_what_the_worker_says_arrives(converse):
    assert converse(stub(SAY_AND_LISTEN)).hear() == ImageMapped(session=5)


def test_what_is_sent_reaches_the_worker_in_order(converse):
    echo = """
        codec = Codec(COMMANDS)
        while (command := codec.read(sys.stdin.buffer)) is not None:
            say(ImageMapped(session=command.session))
    """
    worker = converse(stub(echo))
    for number in range(20):
        worker.send(PauseSession(session=number))
    assert [worker.hear().session for _ in range(20)] == list(range(20))


def test_only_commands_can_be_sent(converse):
    worker = converse(stub(LISTEN))
    with pytest.raises(AssertionError):
        worker.send(ImageMapped(session=1))


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_killed_worker_is_reported_with_its_code(converse):
    worker = converse(stub(SAY_AND_LISTEN))
    worker.hear()
    worker.client.process.kill()
    assert worker.exit()[0] == -signal.SIGKILL
    assert not worker.client.is_alive


def test_a_worker_that_crashes_is_reported_with_its_last_words(converse):
    worker = converse(stub("print('no room', file=sys.stderr); sys.exit(3)"))
    assert worker.exit() == (3, "no room")


def test_only_the_last_lines_of_a_talkative_worker_are_kept(converse):
    worker = converse(stub("for i in range(1000): print(i, file=sys.stderr)"))
    code, errors = worker.exit()
    assert code == 0
    assert errors.splitlines() == [str(i) for i in range(980, 1000)]


@pytest.mark.parametrize(
    "body",
    [
        "print('Downloading 100%' * 99, flush=True)",
        "sys.stdout.buffer.write(b'\\x09\\0\\0\\0{\"a\": 1}}'); sys.stdout.flush()",
        "import os; os.write(1, b'\\x01\\0'); os.close(1)",
        "say(PauseSession(session=1))",
    ],
    ids=["text", "other JSON", "half a prefix", "a command"],
)
def test_a_worker_that_talks_nonsense_is_ended_and_reported(converse, body):
    worker = converse(stub(f"{body}\n{LISTEN}"))
    _, errors = worker.exit()
    assert errors
    assert not worker.client.is_alive


def test_a_worker_of_another_version_is_ended_and_reported(converse):
    missing = """
        import json, struct
        header = json.dumps({"type": "ImageMapped", "fields": {}, "arrays": []}).encode()
        sys.stdout.buffer.write(struct.pack("<I", len(header)) + header)
        sys.stdout.buffer.flush()
    """
    worker = converse(stub(textwrap.dedent(missing) + LISTEN))
    worker.exit(timeout=10)
    assert not worker.client.is_alive


def test_closing_ends_process_threads_and_pipes_and_is_not_an_exit(converse, left_behind):
    worker = converse(stub(SAY_AND_LISTEN))
    worker.hear()
    worker.client.close()
    assert not worker.client.is_alive
    assert left_behind() == []
    process = worker.client.process
    assert all(pipe.closed for pipe in (process.stdin, process.stdout, process.stderr))
    assert worker.exits.empty()


def test_closing_twice_is_the_same_as_closing_once(converse, left_behind):
    worker = converse(stub(LISTEN))
    worker.client.close()
    worker.client.close()
    assert left_behind() == []


def test_closing_a_dead_worker_is_quiet(converse, left_behind):
    worker = converse(stub("sys.exit(1)"))
    worker.exit()
    worker.client.close()
    assert left_behind() == []
    assert worker.exits.empty()


def test_closing_from_the_callback_that_reports_the_end_does_not_hang(left_behind):
    closed = threading.Event()

    def on_exit(code, errors):
        client.close()
        closed.set()

    client = WorkerClient(lambda message: None, on_exit, stub("time.sleep(0.2)"))
    assert closed.wait(SECONDS)
    client.close()
    assert left_behind() == []


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("say(ImageMapped(session=1)); time.sleep(600)", -signal.SIGTERM),
        (
            "signal.signal(signal.SIGTERM, signal.SIG_IGN); "
            "say(ImageMapped(session=1)); time.sleep(600)",
            -signal.SIGKILL,
        ),
    ],
    ids=["terminated", "killed"],
)
def test_a_worker_that_will_not_end_is_made_to(converse, monkeypatch, left_behind, body, code):
    monkeypatch.setattr(client_module, "STOP_SECONDS", 0.3)
    worker = converse(stub(body))
    worker.hear()
    worker.client.close()
    assert worker.client.process.returncode == code
    assert left_behind() == []


def _large() -> SubmitScribbles:
    indices = np.arange(2_000_000, dtype=np.int64)
    return SubmitScribbles(
        session=1,
        shape=(2000, 1000),
        indices=indices,
        classes=indices.astype(np.uint8),
        generation=1,
    )


def test_sending_does_not_wait_for_a_worker_that_does_not_listen(
    converse, monkeypatch, left_behind
):
    monkeypatch.setattr(client_module, "STOP_SECONDS", 0.3)
    worker = converse(stub("say(ImageMapped(session=1)); time.sleep(600)"))
    worker.hear()
    before = time.monotonic()
    worker.send(_large())
    assert time.monotonic() - before < 5  # it would be for ever
    worker.client.close()
    assert left_behind() == []
    assert worker.client.process.stdin.closed


def test_what_is_sent_to_a_dead_worker_is_dropped(converse, left_behind):
    worker = converse(stub("sys.exit(0)"))
    worker.exit()
    worker.send(_large())
    worker.send(StopSession(session=1))
    worker.client.close()
    assert left_behind() == []


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_worker_that_dies_while_it_is_written_to_is_reported_once(converse):
    worker = converse(stub("say(ImageMapped(session=1)); time.sleep(600)"))
    worker.hear()
    worker.send(_large())
    worker.client.process.kill()
    assert worker.exit()[0] == -signal.SIGKILL
    worker.client.close()
    assert worker.client.process.stdin.closed
    assert worker.exits.empty()


# ------------------------------------------------------------ the real worker


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_the_worker_starts_beside_a_file_of_the_users_that_is_called_torch(
    converse, monkeypatch, tmp_path
):
    (tmp_path / "torch.py").write_text("raise SystemExit('mine')")
    (tmp_path / "napari_msseg.py").write_text("raise SystemExit('mine')")
    monkeypatch.chdir(tmp_path)
    worker = converse()
    assert type(worker.hear()).__name__ == "WorkerReady"
    worker.client.process.kill()
    assert worker.exit()[0] == -signal.SIGKILL


def test_a_worker_that_is_closed_while_it_starts_leaves_nothing(converse, left_behind):
    worker = converse()
    worker.client.close()
    assert left_behind() == []
    assert worker.exits.empty()


SCRIPT = """
import queue, sys
from napari_msseg.engine import WorkerClient
print("the script runs")
heard = queue.SimpleQueue()
client = WorkerClient(heard.put, lambda code, errors: heard.put(errors))
print(type(heard.get(timeout=60)).__name__)
client.close()
print("torch is here" if "torch" in sys.modules else "torch is elsewhere")
"""


@pytest.mark.parametrize("how", ["file", "-c", "standard input"])
def test_a_script_without_a_main_guard_runs_once_and_without_torch(tmp_path, how):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    arguments = {"file": [str(path)], "-c": ["-c", SCRIPT], "standard input": ["-"]}[how]
    done = subprocess.run(
        [sys.executable, *arguments],
        input=SCRIPT if how == "standard input" else "",
        capture_output=True,
        text=True,
        timeout=SECONDS,
        cwd=tmp_path,
        check=True,
    )
    assert done.stdout.splitlines() == ["the script runs", "WorkerReady", "torch is elsewhere"]
    assert done.stderr == ""


PARENT = """
import queue, sys, time
import numpy as np
from napari_msseg.commands import StartSession
from napari_msseg.config import default_config
from napari_msseg.engine import WorkerClient
from napari_msseg.engine.shared_image import share, unshare
from napari_msseg.scribbles import ScribbleSnapshot
from napari_msseg.volume import Volume

heard = queue.SimpleQueue()
client = WorkerClient(heard.put, lambda code, errors: sys.exit(errors))
if sys.argv[1] == "training":
    shared = share(Volume(np.random.default_rng(0).normal(size=(128, 128)), "YX"))
    labels = np.zeros((128, 128), np.uint8)
    labels[:4], labels[60:64] = 1, 2
    strokes = ScribbleSnapshot.from_labels(labels)
    client.send(StartSession(session=1, image=shared, config=default_config(2), keep_model=False,
                             indices=strokes.indices, classes=strokes.classes, generation=0))
    while type(heard.get(timeout=60)).__name__ != "StepDone":
        pass
    unshare(shared.path)
print(client.process.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("moment", ["starting", "training"])
def test_the_worker_does_not_outlive_a_killed_parent(moment):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, moment], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    with parent:
        worker = psutil.Process(int(parent.stdout.readline()))
        os.kill(parent.pid, signal.SIGKILL)
        try:
            worker.wait(SECONDS)
        finally:
            if worker.is_running():
                worker.kill()
                pytest.fail("the worker still ran")
