"""Models that commands take: a file of weights, or a session that holds some."""

from __future__ import annotations

import tempfile
from pathlib import Path

from napari_msseg.checkpoint import Checkpoint
from napari_msseg.errors import InputError
from napari_msseg.saved_session import SUFFIX, read_session


def load_model(path: Path) -> Checkpoint:
    """Read a ``.safetensors`` file, or the model of a ``.msseg`` session.

    Raises
    ------
    InputError
        If it cannot be read, or the session holds no model.
    """
    if path.suffix != SUFFIX:
        return Checkpoint.load(path)
    weights = read_session(path).model
    if weights is None:
        raise InputError(f"{path}: the session holds no model")
    with tempfile.TemporaryDirectory() as folder:
        unpacked = Path(folder) / "model.safetensors"
        unpacked.write_bytes(weights)
        return Checkpoint.load(unpacked)
