"""The table of objects, and its file."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_msseg.io.atomic import atomic_path


@dataclass(frozen=True, eq=False)
class Measurements:
    """A table: a row an object, a column a measurement.

    Attributes
    ----------
    columns : mapping of str to ndarray, each of shape (N,)
        In the order in which they are shown.
    unit : str
        Of lengths; areas and volumes are in its square and cube.
    """

    columns: Mapping[str, npt.NDArray[Any]]
    unit: str = "pixel"

    def __len__(self) -> int:
        return len(self.columns["object"])

    def rows(self) -> Iterable[tuple[Any, ...]]:
        """Return the rows as Python values."""
        return zip(*(column.tolist() for column in self.columns.values()), strict=True)

    def with_class_names(self, names: Mapping[int, str]) -> Measurements:
        """Return the table with a column ``class_name`` behind ``class``, or with another one."""
        said = np.array([names.get(k, str(k)) for k in self.columns["class"].tolist()], object)
        columns: dict[str, npt.NDArray[Any]] = {}
        for name, column in self.columns.items():
            if name != "class_name":
                columns[name] = column
            if name == "class":
                columns["class_name"] = said
        return Measurements(columns, self.unit)


def write_csv(path: Path, tables: Sequence[tuple[Mapping[str, object], Measurements]]) -> None:
    """Write tables below each other, each with what is the same in all of its rows.

    The last column is the unit of lengths. A column that some tables do not have is empty there.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    names = dict.fromkeys(k for same, table in tables for k in (*same, *table.columns))
    with (
        atomic_path(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, [*names, "unit"], restval="")
        writer.writeheader()
        for same, table in tables:
            for row in table.rows():
                cells = dict(zip(table.columns, row, strict=True))
                writer.writerow({**same, **cells, "unit": table.unit})
