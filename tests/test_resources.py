from __future__ import annotations

import math

import pytest
import torch

from napari_msseg.devices import autocast, autocast_dtype, choose_device, describe, live_threads
from napari_msseg.errors import InputError
from napari_msseg.resources import Resources, is_out_of_memory, release_cached_memory

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def ladder(resources: Resources) -> list[tuple[Resources, str]]:
    rungs = []
    while (step := resources.smaller()) is not None:
        rungs.append(step)
        resources = step[0]
        assert len(rungs) < 50, "the ladder has no foot"
    return rungs


def test_the_ladder_halves_the_batch_then_the_tile_then_leaves_the_device():
    rungs = ladder(Resources(CUDA, 4, (256, 256)))
    changes = ["batch", "batch", "tile", "tile", "device"]
    before = Resources(CUDA, 4, (256, 256))
    for (after, words), change in zip(rungs, changes, strict=True):
        assert (after.batch_size == before.batch_size // 2) == (change == "batch")
        assert (after.tile_shape != before.tile_shape) == (change == "tile")
        assert (after.device != before.device) == (change == "device")
        assert words
        assert "\n" not in words
        before = after


def test_on_the_cpu_the_ladder_ends_without_another_device():
    rungs = ladder(Resources(CPU, 2, (128, 128)))
    assert all(r.device == CPU for r, _ in rungs)
    assert rungs[-1][0].smaller() is None
    assert rungs[-1][0].batch_size == 1


@pytest.mark.parametrize(
    "tile", [(512, 512), (500, 90), (32, 128, 128), (16, 128, 128), (4, 100, 100), (1, 512, 512)]
)
def test_no_side_of_a_tile_ever_grows_on_the_way_down(tile):
    before = Resources(CPU, 1, tile)
    for after, _ in ladder(before):
        assert all(a <= b for a, b in zip(after.tile_shape, before.tile_shape, strict=True))
        assert math.prod(after.tile_shape) < math.prod(before.tile_shape)
        before = after


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:121] data. DefaultCPUAllocator: can't allocate memory"
        ),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"),
        RuntimeError("MPS backend out of memory (MPS allocated: 5.00 GB)"),
    ],
)
def test_every_way_of_running_out_of_memory_is_recognised(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes cannot be multiplied"), ValueError("out of memory"), OSError()]
)
def test_other_errors_are_not_taken_for_it(error):
    assert not is_out_of_memory(error)


def test_the_cpus_own_allocator_is_recognised():
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(error.value)


def test_releasing_memory_of_the_cpu_is_harmless():
    release_cached_memory(CPU)


@pytest.mark.parametrize("name", ["nonsense", "cuda:99", "xpu", "meta", ""])
def test_a_device_that_is_not_there_is_refused_in_one_line(name):
    with pytest.raises(InputError, match="device") as error:
        choose_device(name)
    assert "\n" not in str(error.value)


def test_auto_takes_the_best_device_that_is_there():
    expected = "cuda" if torch.cuda.is_available() else None
    chosen = choose_device("auto").type
    assert chosen == expected or (expected is None and chosen in ("cpu", "mps"))
    assert choose_device("cpu") == CPU


def test_autocast_computes_in_the_precision_that_the_device_is_described_with():
    dtype = autocast_dtype(CPU) or torch.float32
    with autocast(CPU):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == dtype
    assert describe(CPU) == f"cpu, {str(dtype).removeprefix('torch.')}"


def test_one_core_is_left_to_the_user_where_there_is_more_than_one():
    cores = torch.cpu.get_capabilities().get("num_physical_cores") or 2
    assert 1 <= live_threads() <= max(1, cores - 1)
