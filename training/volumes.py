"""A wide family of synthetic volumes: organs and tumours, tubes and vessels, nuclei, tissue.

What `synthetic` is for images. Shapes are functions of the place, thresholded: a volume of 48³ is
seen whole, as `overview` sees volumes of any size. What is foreground is drawn, not given, and in
half of the scenes with one organ something else looks the same: the place decides there.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from training.synthetic import Floats, Ints, Rng, Scene, draw_from, smooth_noise

Shape = tuple[int, ...]
Mask = npt.NDArray[np.bool_]

MOST_OBJECTS = 150


# ------------------------------------------------------------------------------- shapes


def depth_in_blob(shape: Shape, centre: Floats, radius: float, rng: Rng) -> Floats:
    """Return how deep inside a bent, rough ellipsoid voxels lie, in radii; outside negative."""
    axes = np.exp(rng.normal(0, 0.35, 3))
    axes = axes * radius / np.cbrt(axes.prod())
    turn = Rotation.random(random_state=int(rng.integers(2**31))).as_matrix()
    offset = np.moveaxis(np.indices(shape, np.float32), 0, -1) - centre
    u = (offset @ turn.astype(np.float32)) / axes.astype(np.float32)
    u[..., 0] += rng.uniform(-0.5, 0.5) * u[..., 1] ** 2
    depth = 1 - np.linalg.norm(u, axis=-1)
    roughness = rng.uniform(0, 0.35)
    if roughness > 0.05:
        depth += roughness * smooth_noise(shape, max(1.5, radius * rng.uniform(0.2, 0.7)), rng)
    deep: Floats = depth.astype(np.float32)
    return deep


def regions(shape: Shape, rng: Rng, n: int) -> Ints:
    """Return irregular regions of n kinds."""
    sigma = float(np.exp(rng.uniform(np.log(2.0), np.log(10))))
    fields = np.stack([smooth_noise(shape, sigma, rng) for _ in range(n)])
    fields += 0.3 * np.stack([smooth_noise(shape, sigma / 3, rng) for _ in range(n)])
    fields[0] += rng.uniform(-0.3, 0.6)
    found: Ints = fields.argmax(axis=0).astype(np.int32)
    return found


def surroundings(shape: Shape, rng: Rng) -> Ints:
    """Return parts of what is not foreground: one to four tissues, in half of the cases in air."""
    parts = regions(shape, rng, int(rng.integers(1, 5))) if rng.random() < 0.8 else None
    out = np.zeros(shape, np.int32) if parts is None else parts
    if rng.random() < 0.5:
        middle = np.array([n * rng.uniform(0.4, 0.6) for n in shape], np.float32)
        body = depth_in_blob(shape, middle, max(shape) * rng.uniform(0.4, 0.65), rng) > 0
        out = np.where(body, out + 1, 0).astype(np.int32)
    return out


def organ(shape: Shape, rng: Rng) -> Scene:
    """Return one object among others: an organ, a tumour with its parts, halves of something."""
    parts = surroundings(shape, rng)
    radius = float(np.exp(rng.uniform(np.log(3), np.log(14))))
    depth = depth_in_blob(shape, _somewhere(shape, rng), radius, rng)
    inside = depth > 0
    look = int(parts.max()) + 1
    if rng.random() < 0.35:  # looks like one of the tissues around
        look = int(rng.integers(look))
    classes = inside.astype(np.int32)
    if rng.random() < 0.5:  # something else looks the same
        for _ in range(int(rng.integers(1, 6))):
            other = depth_in_blob(
                shape, _somewhere(shape, rng), radius * rng.uniform(0.4, 1.2), rng
            )
            parts[(other > 0) & (depth < -0.15)] = look
    parts[inside] = look
    meaning = rng.random()
    if meaning < 0.35:  # a core, and what lies around it, are one thing
        core = inside & (depth + 0.2 * smooth_noise(shape, radius / 4 + 0.5, rng) > 0.35)
        parts[core] = parts.max() + 1
    elif meaning < 0.45:
        core = inside & (depth > 0.35)
        parts[core] = parts.max() + 1
        classes[core] = 2
    elif meaning < 0.6:  # a border that only the strokes tell
        direction = rng.normal(size=3)
        along = np.tensordot(direction, np.indices(shape, np.float32), 1)
        classes[inside & (along > np.median(along[inside]))] = 2
    return Scene(classes, parts, inside.astype(np.int32))


def _somewhere(shape: Shape, rng: Rng) -> Floats:
    place: Floats = np.array([n * rng.uniform(0.2, 0.8) for n in shape], np.float32)
    return place


def nuclei(shape: Shape, rng: Rng) -> Scene:
    """Return many round objects, of one kind or of two of which one is meant."""
    objects = scatter(shape, rng, float(np.exp(rng.uniform(np.log(2), np.log(8)))))
    parts = surroundings(shape, rng) if rng.random() < 0.3 else np.zeros(shape, np.int32)
    look = int(parts.max()) + 1
    meant = np.append(False, np.ones(int(objects.max()), bool))
    if rng.random() < 0.25:
        meant[1:] = rng.random(len(meant) - 1) < 0.5
    inside = objects > 0
    parts[inside] = np.where(meant[objects[inside]], look, look + 1)
    return Scene(meant[objects].astype(np.int32), parts, objects)


def scatter(shape: Shape, rng: Rng, radius: float) -> Ints:
    """Strew blobs over a volume until they cover a share of it; returns their numbers."""
    objects = np.zeros(shape, np.int32)
    wanted = rng.uniform(0.03, 0.35) * objects.size
    half = round(2.5 * radius) + 1
    overlap = rng.random() < 0.4
    for number in range(1, MOST_OBJECTS):
        place = [int(rng.integers(n)) for n in shape]
        box = tuple(slice(max(0, p - half), p + half + 1) for p in place)
        here = objects[box]
        centre = np.array([p - s.start for p, s in zip(place, box, strict=True)], np.float32)
        inside = depth_in_blob(here.shape, centre, radius * np.exp(0.2 * rng.normal()), rng) > 0
        if overlap or not (here[inside] > 0).any():
            here[inside] = number
        if np.count_nonzero(objects) > wanted:
            break
    return objects


def tube(shape: Shape, rng: Rng) -> Scene:
    """Return something that runs through the volume, in a sheath or not: a cord, a vessel."""
    axis = int(rng.integers(3))
    n = shape[axis]
    others = [m for i, m in enumerate(shape) if i != axis]
    t = np.arange(n)
    path = [
        m * rng.uniform(0.3, 0.7)
        + ndimage.gaussian_filter1d(rng.normal(0, 1, n), n / 5) * rng.uniform(0, 60)
        for m in others
    ]
    radius = float(np.exp(rng.uniform(np.log(1.5), np.log(9))))
    radii = radius * (1 + 0.25 * np.sin(t * rng.uniform(0, 6 / n) + rng.uniform(0, 6)))
    grids = np.indices([n, *others], np.float32)
    flat = np.exp(rng.normal(0, 0.2))
    v, w = (g - p[:, None, None].astype(np.float32) for g, p in zip(grids[1:], path, strict=True))
    turn = rng.uniform(0, np.pi)
    distance = np.hypot(
        (v * np.cos(turn) + w * np.sin(turn)) * flat, (w * np.cos(turn) - v * np.sin(turn)) / flat
    )
    distance = np.moveaxis(distance / radii[:, None, None].astype(np.float32), 0, axis)
    if rng.random() < 0.5:
        distance = distance + rng.uniform(0, 0.3) * smooth_noise(shape, radius / 2 + 0.5, rng)
    parts = surroundings(shape, rng)
    inside = distance < 1
    first = int(parts.max()) + 1
    look = first if rng.random() < 0.7 else int(rng.integers(first))
    if rng.random() < 0.6:
        parts[distance < rng.uniform(1.2, 2.2)] = first + 1
    parts[inside] = look
    classes = inside.astype(np.int32)
    if rng.random() < 0.2:  # grey matter in white matter
        core = distance < rng.uniform(0.4, 0.7)
        parts[core] = first + 2
        classes = core.astype(np.int32) if rng.random() < 0.5 else classes + core
    return Scene(classes, parts, inside.astype(np.int32))


def vessels(shape: Shape, rng: Rng) -> Scene:
    """Return a bundle of curves of some width."""
    thickness = np.zeros(shape, np.float32)
    width = float(np.exp(rng.uniform(np.log(1.0), np.log(5))))
    for _ in range(int(rng.integers(1, 12))):
        length = int(rng.integers(20, 140))
        bend = ndimage.gaussian_filter1d(rng.normal(0, 1, (length, 3)), rng.uniform(5, 20), axis=0)
        step = rng.normal(size=3) + rng.uniform(0.5, 4) * bend
        step /= np.linalg.norm(step, axis=1, keepdims=True)
        at = (_somewhere(shape, rng) + np.cumsum(step, axis=0)).round().astype(int)
        at = at[((at >= 0) & (at < shape)).all(axis=1)]
        thickness[tuple(at.T)] = width * rng.uniform(0.5, 1.3)
    distance, nearest = ndimage.distance_transform_edt(thickness == 0, return_indices=True)
    classes = (distance <= thickness[tuple(nearest)] / 2 + 0.5).astype(np.int32)
    parts = surroundings(shape, rng) if rng.random() < 0.5 else np.zeros(shape, np.int32)
    parts[classes > 0] = parts.max() + 1
    return Scene(classes, parts, classes)


def tissue(shape: Shape, rng: Rng) -> Scene:
    """Return irregular regions of two to four classes."""
    classes = regions(shape, rng, int(rng.choice([2, 2, 3, 4])))
    return Scene(classes, classes, classes)


def layers(shape: Shape, rng: Rng) -> Scene:
    """Return nested shells, as a head or an organ has them."""
    middle = np.array([n * rng.uniform(0.3, 0.7) for n in shape], np.float32)
    depth = depth_in_blob(shape, middle, max(shape) * rng.uniform(0.3, 0.6), rng)
    depth += rng.uniform(0, 0.25) * smooth_noise(shape, rng.uniform(1.5, 5), rng)
    n = int(rng.integers(1, 5))
    borders = np.sort(rng.uniform(0, 0.8, n))
    parts = np.digitize(depth, borders).astype(np.int32)
    if n == 1 or rng.random() < 0.7:
        chosen = int(rng.integers(1, n + 1))
        inside = parts >= chosen if rng.random() < 0.5 else parts == chosen
        return Scene(inside.astype(np.int32), parts, parts)
    return Scene(parts, parts, parts)


def tessellation(shape: Shape, rng: Rng) -> Scene:
    """Return cells side by side, of which some are meant, or their walls."""
    count = int(np.exp(rng.uniform(np.log(8), np.log(120))))
    centres = rng.uniform(0, 1, (count, 3)) * shape
    grid = np.moveaxis(np.indices(shape, np.float32), 0, -1)
    grid += rng.uniform(0, 4) * np.stack([smooth_noise(shape, 5, rng) for _ in range(3)], -1)
    distance, nearest = cKDTree(centres).query(grid, k=2)
    wall = distance[..., 1] - distance[..., 0] < rng.uniform(1, 3.5)
    objects = np.where(wall, 0, nearest[..., 0] + 1).astype(np.int32)
    if rng.random() < 0.5:
        classes = (wall if rng.random() < 0.5 else ~wall).astype(np.int32)
        return Scene(classes, wall.astype(np.int32), objects)
    meant = np.append(False, rng.random(count) < rng.uniform(0.1, 0.6))
    classes = meant[objects].astype(np.int32)
    parts = np.where(wall, 2, classes) if rng.random() < 0.5 else classes
    return Scene(classes, parts.astype(np.int32), objects)


SHAPES: tuple[tuple[Callable[[Shape, Rng], Scene], float], ...] = (
    (organ, 0.42),
    (tube, 0.12),
    (layers, 0.14),
    (nuclei, 0.12),
    (tissue, 0.1),
    (vessels, 0.05),
    (tessellation, 0.05),
)


def draw_volume(shape: Shape, rng: Rng) -> tuple[Floats, Ints, tuple[float, ...]]:
    """Draw a volume (1, Z, Y, X), the class of every voxel, and the spacing.

    A quarter has thick slices.
    """
    thickness = int(rng.choice([2, 3])) if rng.random() < 0.25 else 1
    image, classes = draw_from(SHAPES, (thickness * shape[0], *shape[1:]), rng, channels=1)
    kept = slice(int(rng.integers(thickness)), None, thickness)
    return image[:, kept], classes[kept], (float(thickness), 1.0, 1.0)
