"""Checks that the configurations share."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from napari_msseg.errors import InputError


def require(condition: bool, message: str) -> None:
    """Raise `InputError` with `message` unless `condition` holds."""
    if not condition:
        raise InputError(message)


def as_choice(config: Any, name: str, choices: type[StrEnum]) -> None:
    """Turn the text in a field into the choice that it names; `InputError` if it names none."""
    value = getattr(config, name)
    if value not in list(choices):
        known = ", ".join(choices)
        raise InputError(f"{name} must be one of {known}, not {value!r}")
    object.__setattr__(config, name, choices(value))
