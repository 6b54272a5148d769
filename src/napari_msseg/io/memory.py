"""How much physical memory is free, with the standard library alone."""

from __future__ import annotations

import ctypes
import os
import sys


def available_memory() -> int | None:
    """Return the free physical memory in bytes, or None where the system does not say.

    Linux says what is available without swapping; where only the total is known (macOS)
    that is returned.
    """
    if sys.platform == "win32":
        return _windows()
    return _proc_meminfo() or _sysconf()


def _proc_meminfo() -> int | None:
    # counts the page cache as available, which SC_AVPHYS_PAGES does not
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def _sysconf() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


class _MemoryStatus(ctypes.Structure):
    """MEMORYSTATUSEX of the Windows API."""

    _fields_ = (
        ("length", ctypes.c_uint32),
        ("load", ctypes.c_uint32),
        ("total", ctypes.c_uint64),
        ("available", ctypes.c_uint64),
        ("rest", ctypes.c_uint64 * 5),
    )


def _windows() -> int | None:
    if sys.platform != "win32":
        return None
    status = _MemoryStatus(length=ctypes.sizeof(_MemoryStatus))
    if not ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        return None
    return int(status.available)
