from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.record import Record  # noqa: E402


def test_a_result_is_found_again_and_not_under_another_configuration(tmp_path):
    path = tmp_path / "results.jsonl"
    unit = {"benchmark": "x", "item": "a", "seed": 0}
    assert Record(path, {"steps": 3}).find(**unit) is None
    Record(path, {"steps": 3}).append(unit, {"iou": 0.5})
    assert Record(path, {"steps": 3}).find(**unit)["iou"] == 0.5
    assert Record(path, {"steps": 4}).find(**unit) is None
    assert Record(path, {"steps": 3}).find(**unit | {"seed": 1}) is None


def test_a_line_says_commit_machine_versions_and_command(tmp_path):
    path = tmp_path / "results.jsonl"
    Record(path, {"shape": (1, 2)}).append({"item": "a"}, {"iou": 0.5})
    (line,) = path.read_text().splitlines()
    entry = json.loads(line)
    assert {"commit", "configuration", "machine", "command", "iou", "item"} <= set(entry)
    assert entry["machine"]["torch"]
    assert entry["command"].startswith("python -m benchmarks")


@pytest.fixture
def tiny_data(tmp_path, scene) -> Path:
    blob = scene((64, 64))
    np.savez(tmp_path / "tiny.npz", img_000=blob.image.data, lab_000=blob.truth, names=["a"])
    return tmp_path


def run_benchmark(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_the_segment_benchmark_appends_and_goes_on_where_it_stopped(tiny_data):
    out = tiny_data / "out.jsonl"
    command = ["segment", "--data", str(tiny_data), "--sets", "tiny", "--seconds", "1"]
    for _ in range(2):
        done = run_benchmark(*command, "--json", str(out))
        assert done.returncode == 0, done.stderr
        assert "mean" in done.stdout
    assert len(out.read_text().splitlines()) == 1


def test_missing_data_is_one_clear_line(tmp_path):
    done = run_benchmark("segment", "--data", str(tmp_path / "nowhere"))
    assert done.returncode == 2
    assert "nowhere" in done.stderr
    assert len(done.stderr.splitlines()) == 1
