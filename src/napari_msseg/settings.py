"""What is kept between runs: a few choices, in a file that anybody can read."""

from __future__ import annotations

import dataclasses
import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from napari_msseg.autosave import data_folder
from napari_msseg.config import from_mapping, to_mapping
from napari_msseg.errors import InputError
from napari_msseg.io.atomic import atomic_path


@dataclass(frozen=True)
class Settings:
    """Choices of the user.

    Parameters
    ----------
    live : bool
        Whether strokes are taken up as they are painted.
    device : str
        As in `SessionConfig`.
    folder : str
        Where masks and sessions were saved last; empty: nowhere yet.
    """

    live: bool = True
    device: str = "auto"
    folder: str = ""

    @classmethod
    def load(cls) -> Settings:
        """Read the choices; what cannot be read, or is of another version, is as at first."""
        try:
            values = json.loads(_path().read_text(encoding="utf-8"))
            settings = from_mapping(cls, values)
        except (OSError, ValueError):  # InputError is a ValueError
            return cls()
        fields = dataclasses.fields(cls)
        fits = all(type(getattr(settings, f.name)) is type(f.default) for f in fields)
        return settings if fits else cls()

    def save(self) -> None:
        """Write the choices; a folder that cannot be written to loses them, and nothing else."""
        path = _path()
        with suppress(OSError, InputError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as temporary:
                temporary.write_text(json.dumps(to_mapping(self), indent=1), encoding="utf-8")


def _path() -> Path:
    return data_folder() / "settings.json"
