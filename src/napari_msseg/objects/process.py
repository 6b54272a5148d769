"""``python -m napari_msseg.objects.process``: finds objects, so that nothing holds up the window.

Reads `FindObjects` from standard input and answers each on standard output, as in `wire`. It
knows no torch, and ends when its input ends.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from napari_msseg.mapped_image import map_image
from napari_msseg.objects.finding import find_objects, keep_numbers
from napari_msseg.objects.measuring import measure
from napari_msseg.objects.messages import COMMANDS, FindObjects, ObjectsFailed, ObjectsFound
from napari_msseg.scheduling import be_nice
from napari_msseg.wire import Codec

LARGEST_OF_UINT16 = 2**16 - 1


class ObjectFinder:
    """Answers one question after the other, and remembers image and numbers."""

    def __init__(self) -> None:
        self._channels: Sequence[npt.NDArray[Any]] = ()
        self._before: npt.NDArray[np.int32] | None = None
        self._largest = 0

    def answer(self, asked: FindObjects) -> ObjectsFound | ObjectsFailed:
        """Find and measure; whatever goes wrong becomes an answer too."""
        try:
            return self._found(asked)
        except Exception as error:  # noqa: BLE001 - the window must hear of it, and we go on
            words = str(error).splitlines()[0] if str(error) else type(error).__name__
            return ObjectsFailed(number=asked.number, message=words)

    def _found(self, asked: FindObjects) -> ObjectsFound:
        if asked.image is not None:
            self._channels = ()
            self._channels = (
                tuple(map_image(asked.image).channels_first()) if asked.image.path else ()
            )
        numbers, classes = find_objects(asked.mask, asked.spacing, asked.config)
        before = self._before
        if asked.goes_on and before is not None and before.shape == numbers.shape:
            new = keep_numbers(numbers, before, self._largest)
            numbers = new[numbers]
            classes = classes[np.argsort(new[1:])]  # tables are in the order of the numbers
        else:
            self._largest = 0
        self._before = numbers
        self._largest = max(self._largest, int(numbers.max(initial=0)))
        table = measure(numbers, classes, asked.spacing, asked.unit, self._channels)
        small = numbers.max(initial=0) <= LARGEST_OF_UINT16  # which napari draws at once
        return ObjectsFound(
            number=asked.number,
            numbers=numbers.astype(np.uint16) if small else numbers,
            names=tuple(table.columns),
            values=np.array(list(table.columns.values()), np.float64),
            unit=table.unit,
        )


def serve(commands: IO[bytes], replies: IO[bytes]) -> None:
    """Answer until the commands end."""
    codec, finder = Codec(COMMANDS), ObjectFinder()
    while (asked := codec.read(commands)) is not None:
        for buffer in Codec.encode(finder.answer(asked)):
            replies.write(buffer)
        replies.flush()


def main() -> None:
    """Serve standard input and output at low priority."""
    be_nice()
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # Whatever is printed from now on must not print into the replies.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        serve(sys.stdin.buffer, replies)
    except BrokenPipeError:
        os._exit(0)  # the owner is gone


if __name__ == "__main__":
    main()
