"""Arrays that every test of the files uses, and what an error must look like."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from napari_msseg.errors import InputError

Refuses = Callable[..., AbstractContextManager[None]]


@pytest.fixture
def stack() -> npt.NDArray[np.uint16]:
    """Return a (Z, Y, X) volume whose axes all differ in length."""
    return np.arange(5 * 12 * 14, dtype=np.uint16).reshape(5, 12, 14)


@pytest.fixture
def refuses() -> Refuses:
    """Return a context that expects one line about the file, and nothing left behind."""

    @contextmanager
    def context(path: Path, *words: str) -> Iterator[None]:
        before = sorted(path.parent.glob("*")) if path.parent.is_dir() else []
        with pytest.raises(InputError) as caught:
            yield
        message = str(caught.value)
        assert "\n" not in message
        assert path.name in message
        for word in words:
            assert word in message
        assert (sorted(path.parent.glob("*")) if path.parent.is_dir() else []) == before

    return context
