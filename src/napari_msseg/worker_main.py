"""``python -m napari_msseg.worker_main``: the worker process.

Apart from `worker`, since what is loaded first is loaded twice as fast without the garbage
collector, which finds nothing to collect among modules.
"""

from __future__ import annotations

import gc
import os


def main() -> None:
    """Load the worker and serve standard input and output."""
    gc.disable()
    # numpy's linear algebra would spin on all cores, and the window needs one of them
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from napari_msseg import worker

    gc.freeze()
    gc.enable()
    worker.main()


if __name__ == "__main__":
    main()
