"""Units of length: one spelling inside, the spelling of each format outside."""

from __future__ import annotations

PIXEL = "pixel"
"""The unit of a spacing that nobody measured."""

MILLIMETRES = {
    "angstrom": 1e-7,
    "nm": 1e-6,
    "um": 1e-3,
    "mm": 1.0,
    "cm": 10.0,
    "m": 1000.0,
    "inch": 25.4,
}
"""Length of each known unit in millimetres."""

_SPELLINGS = {
    "angstrom": ("å", "ångström", "ångstrom"),
    "nm": ("nanometer", "nanometre"),
    "um": ("µm", "μm", "\\u00b5m", "micron", "micrometer", "micrometre"),
    "mm": ("millimeter", "millimetre"),
    "cm": ("centimeter", "centimetre"),
    "m": ("meter", "metre"),
    "inch": ("in", '"'),
}
_KNOWN = {spelling: unit for unit, group in _SPELLINGS.items() for spelling in (unit, *group)}


def normalise_unit(text: str | None) -> str:
    """Return the one spelling of a unit that this package uses.

    An unknown unit becomes ``"pixel"``: napari refuses units it cannot parse, and a
    number without a length is just that.

    >>> [normalise_unit(u) for u in ("micron", "µm", "Millimeters", "furlong", None)]
    ['um', 'um', 'mm', 'pixel', 'pixel']
    """
    # the micro sign and the Greek mu look alike; both occur, and ImageJ escapes the first
    spelling = (text or "").strip().lower()
    return _KNOWN.get(spelling) or _KNOWN.get(spelling.removesuffix("s")) or PIXEL


def length_in(value: float, unit: str, target: str) -> float:
    """Convert a length between two units out of `MILLIMETRES`; others are left alone.

    >>> length_in(500.0, "nm", "um"), length_in(2.0, "pixel", "um")
    (0.5, 2.0)
    """
    if unit == target or unit not in MILLIMETRES or target not in MILLIMETRES:
        return value
    # nine digits: 500 nm are 0.5 um, not 0.49999999999999994
    return float(f"{value * MILLIMETRES[unit] / MILLIMETRES[target]:.9g}")
