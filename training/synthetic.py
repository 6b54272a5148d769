"""A wide family of synthetic segmentation tasks: what is foreground is drawn, not given.

An image is made of three things, each drawn on its own: *shapes* (a map of classes: nuclei,
cells with nuclei, tissue, tessellations, fibres, glands, nested layers), *paint* (intensity,
texture and shading of every class, in any polarity, classes that differ in nothing but texture,
clutter that belongs to the background) and the *camera* (illumination, blur, noise, channels).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import cKDTree

Rng = np.random.Generator
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]
Shapes = Sequence[tuple[Callable[[Any, Rng], "Scene"], float]]

MIN_SHARE, MAX_SHARE = {2: 0.01, 3: 0.002}, {2: 0.97, 3: 0.998}
"""Shares of the pixels that a class may have, by dimensions; other draws are thrown away."""


@dataclass(frozen=True, eq=False)
class Scene:
    """What is where, before anything is painted.

    Attributes
    ----------
    classes : ndarray of int32, shape ([Z,] Y, X)
        What the user means: 0 background, 1 … K − 1.
    parts : ndarray of int32, shape (Y, X)
        What looks alike: a finer division of the classes.
    objects : ndarray of int32, shape (Y, X)
        Numbers of single objects, 0 where there is none.
    """

    classes: Ints
    parts: Ints
    objects: Ints


def smooth_noise(shape: tuple[int, ...], sigma: float | tuple[float, ...], rng: Rng) -> Floats:
    """Return a Gaussian random field of mean 0 and standard deviation 1."""
    field = rng.standard_normal(shape).astype(np.float32)
    return _standardised(ndimage.gaussian_filter(field, sigma, mode="wrap", truncate=3.0))


def _standardised(field: Floats) -> Floats:
    standardised: Floats = (field - field.mean()) / max(float(field.std()), 1e-6)
    return standardised


# ------------------------------------------------------------------------------- shapes


def blob(radius: float, rng: Rng, roughness: float) -> npt.NDArray[np.bool_]:
    """Return the mask of a closed contour around its centre: an ellipse with waves."""
    elongation = np.exp(rng.uniform(0, 0.5))
    half = int(np.ceil(radius * elongation * (1 + 2 * roughness))) + 1
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float32)
    turn = rng.uniform(0, np.pi)
    u = (x * np.cos(turn) + y * np.sin(turn)) / elongation
    v = (y * np.cos(turn) - x * np.sin(turn)) * elongation
    angle = np.arctan2(v, u)
    contour = np.ones_like(angle)
    for n in range(2, 7):
        contour += roughness / n * rng.normal() * np.cos(n * angle + rng.uniform(0, 2 * np.pi))
    mask: npt.NDArray[np.bool_] = np.hypot(u, v) < radius * contour
    return mask


def scatter(
    shape: tuple[int, int],
    rng: Rng,
    radius: float,
    cover: float,
    overlap: bool,
    free: npt.NDArray[np.bool_] | None = None,
) -> Ints:
    """Strew blobs over a plane until they cover a share of it; returns their numbers."""
    objects = np.zeros(shape, np.int32)
    spread, roughness = rng.uniform(0.05, 0.45), rng.uniform(0, 0.35)
    wanted, covered, number = cover * shape[0] * shape[1], 0, 0
    for _ in range(600):
        if covered >= wanted:
            break
        mask = blob(max(1.5, radius * np.exp(spread * rng.normal())), rng, roughness)
        where = _place(mask.shape, shape, rng)
        if where is None:
            continue
        target, source = where
        inside = mask[source]
        if free is not None:
            inside = inside & free[target]
        taken = objects[target][inside] > 0
        if not overlap and taken.any():
            continue
        number += 1
        covered += int(inside.sum()) - int(taken.sum())
        objects[target][inside] = number
    return objects


def _place(
    size: tuple[int, ...], shape: tuple[int, int], rng: Rng
) -> tuple[tuple[slice, ...], tuple[slice, ...]] | None:
    """Return where a mask lies in the plane, and which part of it does, at a random place."""
    target, source = [], []
    for n, whole in zip(size, shape, strict=True):
        start = int(rng.integers(-n // 2, whole - n // 2))
        low, high = max(0, start), min(whole, start + n)
        if high <= low:
            return None
        target.append(slice(low, high))
        source.append(slice(low - start, high - start))
    return tuple(target), tuple(source)


def nuclei(shape: tuple[int, int], rng: Rng) -> Scene:
    """Return round objects, apart or touching."""
    radius = float(np.exp(rng.uniform(np.log(4), np.log(30))))
    objects = scatter(shape, rng, radius, rng.uniform(0.04, 0.5), rng.random() < 0.4)
    classes = (objects > 0).astype(np.int32)
    return Scene(classes, classes, objects)


def cells(shape: tuple[int, int], rng: Rng) -> Scene:
    """Return cells with a nucleus; foreground is the nucleus, the cell, or each by itself."""
    radius = float(np.exp(rng.uniform(np.log(10), np.log(45))))
    objects = scatter(shape, rng, radius, rng.uniform(0.15, 0.7), rng.random() < 0.5)
    depth = ndimage.distance_transform_edt(_interior(objects))
    core = depth > radius * rng.uniform(0.2, 0.5) + 0.15 * radius * smooth_noise(shape, 6, rng)
    core &= objects > 0
    parts = np.where(core, 2, (objects > 0).astype(np.int32)).astype(np.int32)
    meaning = rng.integers(4)
    if meaning == 0:
        classes = (parts > 0).astype(np.int32)
    elif meaning == 1:
        classes = (parts == 2).astype(np.int32)
    elif meaning == 2:
        classes = (parts == 1).astype(np.int32)
    else:
        classes = parts
    return Scene(classes, parts, objects)


def _interior(objects: Ints) -> npt.NDArray[np.bool_]:
    """Return the objects without the pixels where one touches another."""
    inside: npt.NDArray[np.bool_] = ndimage.minimum_filter(objects, 3) == ndimage.maximum_filter(
        objects, 3
    )
    return inside & (objects > 0)


def tissue(shape: tuple[int, int], rng: Rng) -> Scene:
    """Return irregular regions of two to four classes."""
    n = int(rng.choice([2, 2, 2, 3, 4]))
    sigma = float(np.exp(rng.uniform(np.log(4), np.log(28))))
    fields = np.stack([smooth_noise(shape, sigma, rng) for _ in range(n)])
    fields += 0.25 * np.stack([smooth_noise(shape, sigma / 4, rng) for _ in range(n)])
    fields[0] += rng.uniform(-0.3, 0.8)
    classes = fields.argmax(axis=0).astype(np.int32)
    return Scene(classes, classes, classes)


def tessellation(shape: tuple[int, int], rng: Rng) -> Scene:
    """Return cells side by side: foreground are the walls, the cells, or some of the cells."""
    count = int(np.exp(rng.uniform(np.log(15), np.log(250))))
    centres = rng.uniform(0, 1, (count, 2)) * shape
    warp = rng.uniform(0, 6)
    grid = np.moveaxis(np.mgrid[: shape[0], : shape[1]], 0, -1).astype(np.float32)
    grid += warp * np.stack([smooth_noise(shape, 8, rng) for _ in range(2)], -1)
    distance, nearest = cKDTree(centres).query(grid, k=2)
    wall = distance[..., 1] - distance[..., 0] < np.exp(rng.uniform(np.log(1.5), np.log(7)))
    objects = np.where(wall, 0, nearest[..., 0] + 1).astype(np.int32)
    meaning = rng.integers(3)
    if meaning == 0:
        classes = wall.astype(np.int32)
    elif meaning == 1:
        classes = (~wall).astype(np.int32)
    else:
        chosen = np.append(False, rng.random(count) < rng.uniform(0.15, 0.6))
        classes = chosen[objects].astype(np.int32)
        if rng.random() < 0.5:  # cells of a kind, without walls
            objects = (nearest[..., 0] + 1).astype(np.int32)
            classes = chosen[objects].astype(np.int32)
            return Scene(classes, classes, objects)
    parts = np.where(wall, 2, classes).astype(np.int32)
    return Scene(classes, parts, objects)


def fibres(shape: tuple[int, int], rng: Rng) -> Scene:
    """Return curves of some width: fibres, vessels, filaments."""
    objects = _curves(shape, rng, int(rng.integers(2, 24)), np.exp(rng.uniform(0, np.log(7))))
    classes = (objects > 0).astype(np.int32)
    return Scene(classes, classes, objects)


def _curves(shape: tuple[int, int], rng: Rng, count: int, width: float) -> Ints:
    """Draw curves of about a width all over a plane; returns their numbers."""
    drawn = np.zeros(shape, np.float32)
    objects = np.zeros(shape, np.int32)
    for number in range(1, count + 1):
        length = int(rng.integers(40, 350))
        bend = ndimage.gaussian_filter1d(rng.normal(0, 1, length), rng.uniform(6, 30))
        heading = rng.uniform(0, 2 * np.pi) + np.cumsum(bend) * rng.uniform(0.05, 0.4)
        y = rng.uniform(0, shape[0]) + np.cumsum(np.sin(heading))
        x = rng.uniform(0, shape[1]) + np.cumsum(np.cos(heading))
        inside = (y >= 0) & (x >= 0) & (y < shape[0]) & (x < shape[1])
        at = y[inside].astype(int), x[inside].astype(int)
        drawn[at] = np.maximum(drawn[at], width * rng.uniform(0.5, 1.3))
        objects[at] = number
    if not objects.any():
        return objects
    distance, (iy, ix) = ndimage.distance_transform_edt(drawn == 0, return_indices=True)
    thick: Ints = np.where(distance <= drawn[iy, ix] / 2 + 0.5, objects[iy, ix], 0)
    return thick.astype(np.int32)


def glands(shape: tuple[int, int], rng: Rng) -> Scene:
    """Return rings around a lumen."""
    radius = float(rng.uniform(14, 50))
    objects = scatter(shape, rng, radius, rng.uniform(0.15, 0.6), overlap=False)
    depth = ndimage.distance_transform_edt(objects > 0)
    ring = (objects > 0) & (depth < rng.uniform(3, 0.6 * radius + 3))
    lumen = (objects > 0) & ~ring
    meaning = rng.integers(3)
    classes = [ring, lumen, objects > 0][meaning].astype(np.int32)
    return Scene(classes, (ring + 2 * lumen).astype(np.int32), objects)


def layers(shape: tuple[int, int], rng: Rng) -> Scene:
    """Return nested layers around one place, as a head or an organ has them."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    cy, cx = (n * rng.uniform(0.25, 0.75) for n in shape)
    radius = np.hypot((y - cy) * np.exp(rng.normal(0, 0.2)), (x - cx) * np.exp(rng.normal(0, 0.2)))
    fold = smooth_noise(shape, rng.uniform(8, 30), rng) * rng.uniform(3, 18)
    radius = radius + fold + smooth_noise(shape, 4, rng) * rng.uniform(0, 3)
    n = int(rng.integers(1, 5))
    borders = np.sort(rng.uniform(0.06, 0.55, n)) * max(shape)
    parts = np.digitize(radius, borders).astype(np.int32)
    parts = (n - parts).astype(np.int32)  # 0 outside
    if n == 1 or rng.random() < 0.5:
        chosen = int(rng.integers(1, n + 1))
        inside = parts >= chosen if rng.random() < 0.5 else parts == chosen
        return Scene(inside.astype(np.int32), parts, parts)
    return Scene(parts, parts, parts)


def population(shape: tuple[int, int], rng: Rng) -> Scene:
    """Return objects of several kinds, with or without a core; one kind is foreground."""
    classes, parts, objects = (np.zeros(shape, np.int32) for _ in range(3))
    base, n_kinds = float(np.exp(rng.uniform(np.log(6), np.log(28)))), int(rng.integers(2, 5))
    meant = rng.integers(n_kinds)
    for kind in range(n_kinds):
        radius = float(np.clip(base * np.exp(rng.normal(0, 0.5)), 3, 45))
        free = parts == 0 if rng.random() < 0.6 else None
        found = scatter(shape, rng, radius, rng.uniform(0.03, 0.3), rng.random() < 0.5, free)
        inside = found > 0
        parts[inside], classes[inside] = 2 * kind + 1, kind == meant
        objects[inside] = found[inside] + objects.max()
        if rng.random() < 0.5:
            depth = ndimage.distance_transform_edt(_interior(found))
            parts[depth > radius * rng.uniform(0.2, 0.5)] = 2 * kind + 2
    if rng.random() < 0.25 and (parts == 2 * meant + 2).any():
        classes = (parts == 2 * meant + 2).astype(np.int32)
    return Scene(classes, parts, objects)


def section(shape: tuple[int, int], rng: Rng) -> Scene:
    """Return small objects, crowded in places, on a ground of several looks with folds in it.

    Some folds look like the objects.
    """
    n = int(rng.integers(1, 5))
    sigma = float(np.exp(rng.uniform(np.log(5), np.log(35))))
    parts = np.stack([smooth_noise(shape, sigma, rng) for _ in range(n)]).argmax(0)
    parts = parts.astype(np.int32)
    alike, around, fold = n, n + 1, n + 2
    if rng.random() < 0.6:
        curves = _curves(shape, rng, int(rng.integers(1, 12)), rng.uniform(1.5, 12)) > 0
        parts[curves] = alike if rng.random() < 0.3 else fold
    radius = float(np.exp(rng.uniform(np.log(3), np.log(14))))
    crowded = smooth_noise(shape, rng.uniform(15, 50), rng) > rng.uniform(-2, 0.8)
    cover = np.exp(rng.uniform(np.log(0.015), np.log(0.35)))
    objects = scatter(shape, rng, radius, cover, rng.random() < 0.5, crowded)
    if rng.random() < 0.5:
        away = ndimage.distance_transform_edt(objects == 0)
        parts[away < rng.uniform(1.5, 12) + 2 * smooth_noise(shape, 6, rng)] = around
    classes = (objects > 0).astype(np.int32)
    parts[objects > 0] = alike
    return Scene(classes, parts, objects)


SHAPES: tuple[tuple[Callable[[tuple[int, int], Rng], Scene], float], ...] = (
    (nuclei, 0.22),
    (cells, 0.14),
    (tissue, 0.1),
    (tessellation, 0.1),
    (fibres, 0.06),
    (glands, 0.06),
    (layers, 0.07),
    (population, 0.12),
    (section, 0.13),
)


# -------------------------------------------------------------------------------- paint


def texture(shape: tuple[int, ...], rng: Rng) -> Floats:
    """Return a texture of mean 0 and standard deviation 1."""
    kind = rng.integers(4)
    sigma = float(np.exp(rng.uniform(np.log(0.6), np.log(6))))
    if kind == 0:
        return smooth_noise(shape, sigma, rng)
    if kind == 1:  # drawn out along an axis
        sigmas = [sigma] * len(shape)
        sigmas[rng.integers(len(shape))] *= rng.uniform(2, 5)
        return smooth_noise(shape, tuple(sigmas), rng)
    if kind == 2:  # grains
        grains = (rng.random(shape) < np.exp(rng.uniform(np.log(0.002), np.log(0.05)))).astype(
            np.float32
        )
        field = ndimage.gaussian_filter(grains, min(sigma, 2.5), truncate=3.0)
        return _standardised(field)
    return _standardised(np.abs(smooth_noise(shape, sigma, rng)))


def paint(scene: Scene, channels: int, rng: Rng) -> Floats:
    """Give every part its look; returns (C, [Z,] Y, X) around 0 to 1."""
    shape = scene.classes.shape
    n_parts = int(scene.parts.max()) + 1
    contrast = np.exp(rng.uniform(np.log(0.12), np.log(0.8)))
    means = rng.uniform(-1, 1, (n_parts, channels)) * contrast
    if rng.random() < 0.1:  # nothing but texture tells them apart
        means[:] = means[:1]
    image: Floats = means.T[:, scene.parts].astype(np.float32)
    for part in range(n_parts):
        amount = rng.choice([0.0, 1.0, 1.0]) * rng.uniform(0, 0.25)
        if amount:
            share = rng.uniform(0, 1, (channels, *[1] * len(shape))) if rng.random() < 0.5 else 1.0
            grain = texture(shape, rng) * (scene.parts == part) * amount
            image += (grain * share).astype(np.float32)
    _shade_objects(image, scene, contrast, rng)
    if rng.random() < 0.5 and len(shape) == 2:
        _add_clutter(image, scene, contrast, rng)
    if rng.random() < 0.3:
        _add_halos(image, scene, contrast, rng)
    return image


def _shade_objects(image: Floats, scene: Scene, contrast: float, rng: Rng) -> None:
    """Give objects brightness of their own, and a profile from rim to centre."""
    inside = scene.objects > 0
    if not inside.any():
        return
    own = rng.normal(0, 1, int(scene.objects.max()) + 1) * rng.choice([0, 1]) * rng.uniform(0, 0.6)
    image += (contrast * own[scene.objects] * inside).astype(np.float32)
    if rng.random() < 0.5:
        depth = ndimage.distance_transform_edt(_interior(scene.objects))
        reach = rng.uniform(1.5, 10)
        profile = np.exp(-depth / reach) if rng.random() < 0.5 else np.minimum(depth / reach, 1)
        image += (contrast * rng.uniform(-0.9, 0.9) * profile * inside).astype(np.float32)


def _add_clutter(image: Floats, scene: Scene, contrast: float, rng: Rng) -> None:
    """Strew things of other looks over one class: debris, other cells, bubbles."""
    where = scene.classes == (0 if rng.random() < 0.8 else int(scene.classes.max()))
    radius = float(np.exp(rng.uniform(np.log(1.5), np.log(18))))
    things = scatter(image.shape[1:], rng, radius, rng.uniform(0.01, 0.15), True, where) > 0
    look = rng.uniform(-1, 1, (len(image), 1)) * contrast
    image[:, things] = look if rng.random() < 0.5 else image[:, things] * 0.3 + look


def _add_halos(image: Floats, scene: Scene, contrast: float, rng: Rng) -> None:
    """Surround the foreground with a rim that belongs to the background."""
    away = ndimage.distance_transform_edt(scene.classes == 0)
    rim = np.exp(-away / rng.uniform(1.5, 8)) * (scene.classes == 0)
    look = rng.uniform(-1, 1, (len(image), *[1] * rim.ndim)) * contrast
    image += (look * rim).astype(np.float32)


# ------------------------------------------------------------------------------- camera


def expose(image: Floats, rng: Rng) -> Floats:
    """Light, blur and noise."""
    shape = image.shape[1:]
    slow, slower = (min(sigma, max(shape) / 4) for sigma in (50, 60))
    if rng.random() < 0.5:
        image = image + rng.uniform(0, 0.35) * smooth_noise(shape, slower, rng)
    if rng.random() < 0.3:
        image = image * (1 + rng.uniform(0, 0.4) * smooth_noise(shape, slow, rng))
    sigma = rng.choice([0.0, 1.0]) * rng.uniform(0.4, 2.2)
    if sigma:
        image = ndimage.gaussian_filter(image, (0, *[sigma] * len(shape)), truncate=3.0)
    noise = np.exp(rng.uniform(np.log(0.005), np.log(0.2)))
    grain = rng.standard_normal(image.shape).astype(np.float32)
    if rng.random() < 0.3:  # correlated, as after resampling or compression
        grain = ndimage.gaussian_filter(grain, (0, *[0.8] * len(shape)), truncate=2.0) * 2
    image = image + noise * grain
    if rng.random() < 0.3:
        low, high = image.min(), image.max()
        scaled = (image - low) / max(float(high - low), 1e-6)
        image = scaled ** np.float32(np.exp(rng.uniform(-0.9, 0.9)))
    exposed: Floats = image.astype(np.float32)
    return exposed


def draw_from(
    shapes: Shapes, shape: tuple[int, ...], rng: Rng, channels: int
) -> tuple[Floats, Ints]:
    """Draw a scene of one of the shapes and take its picture; returns (C, …) and classes."""
    makers, weights = zip(*shapes, strict=True)
    while True:
        maker = makers[rng.choice(len(makers), p=np.array(weights) / sum(weights))]
        scene = maker(shape, rng)
        shares = np.bincount(scene.classes.ravel(), minlength=2) / scene.classes.size
        if shares.min() > MIN_SHARE[len(shape)] and shares.max() < MAX_SHARE[len(shape)]:
            break
    return expose(paint(scene, channels, rng), rng), scene.classes


def draw_task(shape: tuple[int, int], rng: Rng) -> tuple[Floats, Ints]:
    """Draw an image (C, Y, X), C one or three, and the class of every pixel (Y, X)."""
    return draw_from(SHAPES, shape, rng, channels=int(rng.choice([1, 1, 3])))
