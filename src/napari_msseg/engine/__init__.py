"""The client side of the worker process: standard library and numpy only, never torch."""

from napari_msseg.engine.client import WorkerClient

__all__ = ["WorkerClient"]
