"""Configurations as plain values, and back."""

from __future__ import annotations

import dataclasses
from enum import Enum
from typing import Any, TypeVar, cast, get_args, get_type_hints

from napari_msseg.config.checks import require
from napari_msseg.errors import InputError

T = TypeVar("T")


def to_mapping(config: Any) -> dict[str, Any]:
    """Return a configuration as plain nested dicts and lists, for JSON."""
    return dataclasses.asdict(config)


def from_mapping(cls: type[T], mapping: dict[str, Any]) -> T:
    """Build a configuration dataclass from plain nested dicts.

    Raises
    ------
    InputError
        If a key is unknown, or a value is refused by the class.
    """
    hints = get_type_hints(cls)
    require(isinstance(mapping, dict), f"{cls.__name__} must be a mapping of names to values")
    unknown = sorted(set(mapping) - set(hints))
    require(not unknown, f"unknown configuration keys for {cls.__name__}: {', '.join(unknown)}")
    values = {key: _restore(hints[key], value) for key, value in mapping.items()}
    try:
        return cls(**values)
    except (TypeError, AttributeError) as error:
        raise InputError(f"values do not fit {cls.__name__}: {error}") from None


def _restore(hint: Any, value: Any) -> Any:
    """Undo what JSON does to nested dataclasses, enums and tuples."""
    hint = next((kind for kind in get_args(hint) if dataclasses.is_dataclass(kind)), hint)
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return from_mapping(cast("type[Any]", hint), value)
    if isinstance(hint, type) and issubclass(hint, Enum):
        known = ", ".join(str(choice.value) for choice in hint)
        require(value in [choice.value for choice in hint], f"{value!r}: must be one of {known}")
        return hint(value)
    return tuple(value) if isinstance(value, list) else value
