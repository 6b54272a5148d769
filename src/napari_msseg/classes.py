"""The classes that a user paints: names and colours, and which label each has.

A class keeps its label for life. Its place in the table is for the eye, and for the keys 1 to 9:
moving a class, or removing another, changes no pixel and no meaning, not even of what undo
brings back.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from napari_msseg.errors import InputError
from napari_msseg.scribbles import MAX_CLASSES

# Okabe and Ito's palette: told apart with any kind of colour vision.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442")
BACKGROUND = 0
"""The class that is always there, and always first."""
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
_BREAKING = ("Cc", "Cs", "Zl", "Zp")
"""Control characters, lone surrogates, line and paragraph ends: no line of a file can hold them."""


@dataclass(frozen=True)
class NamedClass:
    """One class.

    Parameters
    ----------
    class_ : int
        0 … `MAX_CLASSES` − 1; masks hold it, scribble layers hold it plus one.
    name : str
        What the user reads.
    colour : str
        ``#rrggbb``.

    Raises
    ------
    InputError
        If the name is empty or holds control characters, or the colour is none.
    """

    class_: int
    name: str
    colour: str

    def __post_init__(self) -> None:
        if not 0 <= self.class_ < MAX_CLASSES:
            raise InputError(f"there can be {MAX_CLASSES} classes, not a class {self.class_}")
        if not self.name.strip() or any(unicodedata.category(c) in _BREAKING for c in self.name):
            # not str.isprintable: Persian, and many an emoji, need characters that it refuses
            raise InputError("a class needs a name of one line, without tabs and the like")
        if not _COLOUR.fullmatch(self.colour):
            raise InputError(f"{self.colour!r} is no colour: write it as #rrggbb")


@dataclass(frozen=True)
class ClassTable:
    """Classes in the order in which they are shown, the background first.

    Parameters
    ----------
    classes : tuple of NamedClass
    removed : tuple of NamedClass
        Classes that are gone but whose strokes undo may bring back: they come back with them.

    Raises
    ------
    InputError
        If the background is not the first, or two classes share a number or a name.
    """

    classes: tuple[NamedClass, ...]
    removed: tuple[NamedClass, ...] = ()

    def __post_init__(self) -> None:
        if not self.classes or self.classes[0].class_ != BACKGROUND:
            raise InputError("the first class must be the background")
        numbers = [c.class_ for c in (*self.classes, *self.removed)]
        names = [c.name for c in self.classes]
        if len(set(numbers)) < len(numbers) or len(set(names)) < len(names):
            raise InputError("two classes have the same name or number")

    @property
    def names(self) -> dict[int, str]:
        """The name of every class, by its number."""
        return {c.class_: c.name for c in self.classes}

    @classmethod
    def default(cls) -> ClassTable:
        """Return background and foreground."""
        return cls(
            (
                NamedClass(BACKGROUND, "Background", PALETTE[0]),
                NamedClass(1, "Foreground", PALETTE[1]),
            )
        )

    def __iter__(self) -> Iterator[NamedClass]:
        return iter(self.classes)

    def __len__(self) -> int:
        return len(self.classes)

    def __contains__(self, class_: object) -> bool:
        return any(c.class_ == class_ for c in self.classes)

    def __getitem__(self, class_: int) -> NamedClass:
        """Return a class by its number, not by its place; KeyError where it is none."""
        for c in self.classes:
            if c.class_ == class_:
                return c
        raise KeyError(class_)

    def place(self, class_: int) -> int:
        """Return where in the table a class stands, from 0."""
        return [c.class_ for c in self.classes].index(class_)

    # ------------------------------------------------------------------ changes

    def added(self, name: str = "") -> ClassTable:
        """Return a table with one more class, of the lowest number that was never used.

        Raises
        ------
        InputError
            If there is no number left, or the name is taken.
        """
        used = {c.class_ for c in (*self.classes, *self.removed)}
        return self.with_class(next(k for k in range(MAX_CLASSES + 1) if k not in used), name)

    def with_class(self, class_: int, name: str = "") -> ClassTable:
        """Return a table that has this class: as it was if it was removed, else a new one.

        One that comes back under a name that is taken by now gets a number behind its name.

        Raises
        ------
        InputError
            If the class is out of range, or the name of a new one is taken.
        """
        if class_ in self:
            return self
        name = name.strip()
        known = next((c for c in self.removed if c.class_ == class_), None)
        rest = tuple(c for c in self.removed if c is not known)
        new = known or NamedClass(class_, name or f"Class {class_ + 1}", colour_of(class_))
        chosen = known is None and name
        if new.name in {c.name for c in self.classes} and not chosen:
            new = replace(new, name=self._free_name(new.name))
        return ClassTable((*self.classes, new), rest)

    def without(self, class_: int) -> ClassTable:
        """Return a table without a class.

        Raises
        ------
        InputError
            If it is the background, or the only class beside it.
        """
        if class_ == BACKGROUND:
            raise InputError("the background cannot be removed")
        if len(self) <= 2:
            raise InputError("one class beside the background must stay")
        gone = self[class_]
        rest = tuple(c for c in self.classes if c is not gone)
        return ClassTable(rest, (*self.removed, gone))

    def renamed(self, class_: int, name: str) -> ClassTable:
        """Return a table in which a class has another name.

        Raises
        ------
        InputError
            If the name is empty or another class has it.
        """
        return self._changed(replace(self[class_], name=name.strip()))

    def coloured(self, class_: int, colour: str) -> ClassTable:
        """Return a table in which a class has another colour (``#rrggbb``)."""
        return self._changed(replace(self[class_], colour=colour))

    def moved(self, class_: int, place: int) -> ClassTable:
        """Return a table with a class at another place; the background stays first."""
        if class_ == BACKGROUND:
            return self
        moving = self[class_]
        rest = [c for c in self.classes if c is not moving]
        rest.insert(max(1, place), moving)
        return ClassTable(tuple(rest), self.removed)

    def _changed(self, new: NamedClass) -> ClassTable:
        classes = (new if c.class_ == new.class_ else c for c in self.classes)
        return ClassTable(tuple(classes), self.removed)

    def _free_name(self, name: str) -> str:
        taken = {c.name for c in self.classes}
        return next(n for i in range(2, 999) if (n := f"{name} ({i})") not in taken)

    # -------------------------------------------------------------------- files

    def to_mapping(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {
            key: [{"class": c.class_, "name": c.name, "colour": c.colour} for c in part]
            for key, part in (("classes", self.classes), ("removed", self.removed))
        }

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> ClassTable:
        """Read what `to_mapping` wrote.

        Raises
        ------
        InputError
            If it is no class table.
        """
        try:
            parts = [
                tuple(_from_mapping(c) for c in values.get(key, ()))
                for key in ("classes", "removed")
            ]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"this is no class table: {error}") from None
        return cls(*parts)


def _from_mapping(values: Mapping[str, Any]) -> NamedClass:
    """Return one class; TypeError where a value is of another type, which a file may hold."""
    number, name, colour = values["class"], values["name"], values["colour"]
    if type(number) is not int or type(name) is not str or type(colour) is not str:
        raise TypeError("a class has a whole number, a name and a colour")
    return NamedClass(number, name, colour)


def colour_of(class_: int) -> str:
    """Return the colour that a class starts with; foreground colours repeat after six."""
    if class_ == BACKGROUND:
        return PALETTE[0]
    return PALETTE[1 + (class_ - 1) % (len(PALETTE) - 1)]
