"""Write the scribbles and reference masks of the two demo images.

Both references were drawn by hand over the magnified images, by the engineer of this project (an
AI model looking at pictures); no pathologist or radiologist has checked them.

- *Glands* (``skimage.data.immunohistochemistry``): polygons traced on the picture at five to
  seven times its size, then overlaid, looked at again and corrected. Brown epithelium with the
  nuclei in it is class 1; lumens, holes and stroma are not. No segmentation algorithm took part.
- *Brain* (nibabel's ``example4d.nii.gz``, first volume): a threshold with opening, largest
  component, closing, hole filling and light smoothing, slice by slice, gave the first outline.
  All 24 slices were then looked at magnified with that outline, and corrected by the polygons
  in ``BRAIN_CORRECTIONS`` where it was wrong. Vessels, ventricles and closed sulci belong to the
  brain; the dark rim, the bright strips of scalp and the air around it do not.

The strokes were drawn while looking at the images alone; no classifier was run to place them.

Every coordinate is (row, column) in pixels, for the brain (first axis, second axis) of the
NIfTI array. Scribbles hold 0 unlabelled, 1 background, 2 foreground; references hold
0 background, 1 foreground.

Run ``python tools/make_demo_data.py``; it writes the same arrays each time.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.testing import data_path
from scipy import ndimage as ndi
from skimage import draw
from skimage.io import imsave

Points = list[tuple[float, float]]
Labels = npt.NDArray[np.uint8]

DEMO_DIR = Path(__file__).resolve().parents[1] / "src" / "napari_msseg" / "demo_data"
BACKGROUND, FOREGROUND = 1, 2

GLAND_SHAPE = (512, 512)
GLAND_BRUSH = 5
BRAIN_BRUSH = 3
BRAIN_THRESHOLD = 220

# fmt: off
# Outer outlines; neighbours that touch share an edge.
GLANDS: dict[str, Points] = {
    "upper left": [
        (0, 0), (0, 275), (140, 275), (140, 272), (150, 272), (160, 271), (170, 270),
        (180, 268), (190, 265), (200, 262), (210, 260), (217, 258), (224, 256),
        (225, 251), (230, 247), (235, 245), (239, 243), (240, 239), (244, 234),
        (249, 231), (250, 223), (254, 216), (257, 210), (260, 204), (260, 195),
        (260, 188), (259, 182), (259, 176), (257, 171), (254, 167), (251, 163),
        (247, 158), (243, 153), (240, 148), (238, 143), (235, 136), (233, 130),
        (230, 124), (228, 117), (226, 112), (222, 107), (217, 103), (216, 98), (215, 92),
        (216, 85), (213, 79), (208, 74), (204, 68), (203, 62), (200, 57), (192, 50),
        (188, 44), (178, 32), (170, 24), (158, 15), (150, 5), (146, 0),
    ],
    "upper right": [
        (0, 240), (0, 422), (10, 425), (20, 428), (40, 433), (60, 440), (80, 446),
        (100, 450), (110, 453), (120, 456), (140, 457), (157, 460), (165, 458),
        (170, 460), (177, 459), (185, 458), (195, 456), (200, 450), (210, 446),
        (218, 442), (225, 443), (235, 445), (250, 441), (256, 439), (268, 434),
        (278, 430), (286, 428), (292, 425), (297, 418), (298, 410), (296, 403),
        (291, 398), (287, 393), (283, 388), (280, 380), (279, 372), (280, 361),
        (277, 358), (270, 350), (264, 341), (256, 334), (250, 326), (240, 319),
        (230, 312), (220, 306), (210, 302), (200, 299), (190, 295), (180, 291),
        (170, 287), (160, 283), (150, 280), (140, 277), (139, 274), (100, 268), (60, 256),
        (20, 243),
    ],
    "left": [
        (146, 0), (150, 5), (158, 15), (170, 24), (178, 32), (188, 44), (196, 47),
        (203, 52), (208, 57), (211, 62), (214, 68), (220, 73), (228, 77), (235, 81),
        (240, 84), (248, 90), (256, 93), (260, 96), (270, 102), (280, 108), (290, 111),
        (295, 117), (300, 120), (310, 126), (318, 133), (325, 138), (335, 143),
        (345, 146), (355, 149), (365, 151), (380, 156), (395, 158), (400, 160),
        (420, 160), (440, 159), (460, 158), (480, 158), (500, 159), (512, 159), (512, 42),
        (500, 41), (490, 40), (480, 39), (470, 38), (460, 38), (450, 39), (440, 40),
        (430, 40), (420, 42), (410, 44), (400, 45), (390, 46), (380, 47), (370, 48),
        (360, 49), (350, 51), (340, 50), (333, 50), (330, 48), (320, 41), (310, 33),
        (300, 26), (290, 21), (280, 12), (275, 7), (270, 2), (267, 0),
    ],
    "lower": [
        (303, 286), (305, 290), (310, 293), (313, 300), (316, 310), (318, 318),
        (322, 326), (328, 330), (330, 335), (332, 341), (337, 346), (342, 352),
        (345, 360), (348, 366), (353, 369), (358, 371), (366, 371), (373, 372),
        (378, 375), (384, 377), (390, 378), (398, 378), (405, 381), (412, 382),
        (420, 383), (440, 383), (445, 380), (455, 378), (465, 378), (472, 376),
        (478, 374), (485, 371), (492, 369), (500, 366), (504, 362), (507, 352),
        (508, 343), (505, 338), (503, 330), (501, 318), (501, 308), (499, 302),
        (490, 300), (480, 299), (472, 296), (465, 290), (460, 285), (455, 281),
        (448, 278), (444, 273), (438, 271), (430, 266), (423, 262), (415, 259),
        (408, 257), (403, 254), (397, 254), (390, 252), (380, 250), (375, 249),
        (365, 250), (355, 251), (345, 252), (340, 255), (335, 259), (332, 267),
        (327, 270), (318, 271), (312, 275), (306, 280),
    ],
}

# What lies inside an outline without being epithelium.
HOLES: dict[str, Points] = {
    "lumen, top edge": [
        (-1, 51), (7, 57), (12, 61), (16, 65), (17, 69), (14, 74), (10, 79), (6, 86),
        (4, 95), (4, 108), (3, 118), (4, 127), (6, 134), (10, 140), (20, 139), (30, 137),
        (38, 138), (41, 146), (44, 150), (50, 154), (58, 157), (66, 155), (72, 151),
        (77, 156), (80, 162), (86, 167), (88, 170), (85, 173), (78, 168), (70, 167),
        (63, 167), (59, 182), (54, 177), (50, 170), (50, 164), (47, 160), (46, 155),
        (43, 158), (36, 160), (30, 160), (24, 162), (17, 158), (12, 156), (5, 154),
        (-1, 153),
    ],
    "lumen, upper left, small": [
        (90, 174), (94, 178), (99, 180), (103, 181), (104, 178), (110, 178), (114, 175),
        (112, 173), (105, 174), (100, 176), (95, 175),
    ],
    "stroma sliver, left edge": [
        (133, -1), (134, 5), (138, 10), (146, 11), (151, 9), (148, 4), (146, -1),
    ],
    "lumen slit, upper right": [
        (-1, 272), (-1, 279), (10, 285), (20, 290), (30, 295), (40, 301), (50, 306),
        (60, 312), (70, 319), (80, 326), (90, 331), (100, 337), (105, 347), (110, 350),
        (120, 353), (130, 357), (140, 360), (145, 366), (155, 372), (160, 373),
        (170, 377), (180, 380), (187, 382), (195, 381), (197, 377), (195, 372),
        (187, 363), (180, 356), (170, 349), (160, 342), (150, 338), (140, 332),
        (130, 327), (120, 324), (110, 319), (100, 314), (90, 312), (80, 308), (70, 303),
        (60, 300), (50, 296), (40, 292), (30, 288), (20, 284), (10, 279),
    ],
    "white hole, left": [
        (409, 99), (411, 106), (417, 109), (427, 109), (427, 104), (421, 100), (415, 97),
    ],
}
# fmt: on

GLAND_STROKES: list[tuple[int, Points]] = [
    # Two in the upper left gland, one each in the upper right, left and lower gland.
    (FOREGROUND, [(60, 30), (75, 45), (95, 38), (115, 60), (135, 85), (150, 105), (165, 120)]),
    (FOREGROUND, [(90, 205), (110, 220), (135, 215), (160, 225), (185, 235), (205, 222)]),
    (FOREGROUND, [(40, 350), (60, 375), (85, 385), (110, 405), (135, 420), (165, 435)]),
    (FOREGROUND, [(268, 60), (300, 82), (330, 100), (355, 115), (385, 125), (422, 130)]),
    (FOREGROUND, [(350, 290), (370, 310), (395, 315), (420, 345), (442, 340), (465, 320)]),
    # Stroma in the middle, the lumen slit, the white left edge, stroma right and below.
    (BACKGROUND, [(275, 150), (285, 175), (280, 205), (290, 240), (296, 258), (320, 235)]),
    (BACKGROUND, [(85, 318), (105, 328), (125, 340), (145, 352), (170, 362)]),
    (BACKGROUND, [(305, 8), (325, 20), (355, 30), (385, 20), (420, 15), (450, 20)]),
    (BACKGROUND, [(30, 452), (110, 475), (200, 470), (300, 468), (380, 440), (440, 420)]),
    (BACKGROUND, [(340, 190), (380, 205), (420, 200), (460, 225), (490, 250)]),
]

# (slice, value to set, polygon); half pixels make a polygon cover whole voxels.
BRAIN_CORRECTIONS: list[tuple[int, int, Points]] = [
    # A streak of cortex that the opening cut off.
    (0, 1, [(34.6, 29.6), (34.6, 31.4), (37.4, 32.4), (38.4, 30.6)]),
    # Rim voxels left of the occipital pole.
    (2, 0, [(65.6, 1.6), (65.6, 2.4), (70.4, 2.4), (70.4, 1.6)]),
    # The dark end of the fissure between the hemispheres, open to the outside.
    (16, 0, [(60.6, 5.6), (60.6, 8.4), (61.4, 8.4), (61.4, 5.6)]),
]

BRAIN_STROKES: list[tuple[int, int, Points]] = [
    (4, FOREGROUND, [(45, 20), (50, 35), (46, 50), (44, 65), (55, 76)]),
    (4, FOREGROUND, [(80, 15), (78, 30), (84, 45), (80, 62), (72, 74)]),
    (4, BACKGROUND, [(31, 46), (32, 55), (33, 62), (34, 70), (36, 78)]),
    (4, BACKGROUND, [(106, 8), (110, 30), (105, 55), (109, 85)]),
    (12, FOREGROUND, [(42, 18), (45, 35), (40, 52), (46, 70), (58, 80)]),
    (12, FOREGROUND, [(63, 22), (72, 30), (75, 48), (84, 60), (80, 74)]),
    (12, BACKGROUND, [(44, 6), (39, 11), (34, 18), (30, 26), (29, 40)]),
    (12, BACKGROUND, [(110, 15), (105, 40), (108, 70)]),
    (20, FOREGROUND, [(45, 25), (52, 38), (58, 45), (46, 58), (58, 70)]),
    (20, FOREGROUND, [(75, 15), (82, 28), (74, 45), (82, 60), (72, 75)]),
    (20, BACKGROUND, [(95, 62), (91, 72), (86, 79), (80, 84), (72, 88)]),
    (20, BACKGROUND, [(12, 20), (16, 50), (12, 80)]),
]


def fill(mask: Labels, polygon: Points, value: int) -> None:
    """Set the pixels inside one polygon, in place."""
    rows, columns = np.array(polygon).T
    mask[draw.polygon(rows, columns, shape=mask.shape)] = value


def paint(scribbles: Labels, points: Points, brush: int, label: int) -> None:
    """Draw one polyline with a round brush of ``brush`` pixels, in place."""
    line = np.zeros(scribbles.shape, dtype=bool)
    for (r0, c0), (r1, c1) in pairwise(points):
        line[draw.line(int(r0), int(c0), int(r1), int(c1))] = True
    reach = brush // 2
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    # The radius is half the brush, so that 3 px is a full square, as in napari.
    disk = rows**2 + columns**2 <= (brush / 2) ** 2
    scribbles[ndi.binary_dilation(line, disk)] = label


def gland_reference() -> Labels:
    """Rasterise the hand-drawn glands, then take the lumens and holes out."""
    mask = np.zeros(GLAND_SHAPE, dtype=np.uint8)
    for polygon in GLANDS.values():
        fill(mask, polygon, 1)
    for polygon in HOLES.values():
        fill(mask, polygon, 0)
    return mask


def gland_scribbles() -> Labels:
    """Paint the 2D strokes."""
    scribbles = np.zeros(GLAND_SHAPE, dtype=np.uint8)
    for label, points in GLAND_STROKES:
        paint(scribbles, points, GLAND_BRUSH, label)
    return scribbles


def brain_outline(image: npt.NDArray[np.float64]) -> Labels:
    """Return the first outline of one slice, before the corrections by hand."""
    opened = ndi.binary_opening(image > BRAIN_THRESHOLD, iterations=2)
    components, _ = ndi.label(opened)
    largest = components == 1 + np.argmax(np.bincount(components.ravel())[1:])
    # Closing erodes from the image border unless there is room around it.
    room = 6
    closed = ndi.binary_closing(np.pad(largest, room), iterations=3)
    filled = ndi.binary_fill_holes(closed[room:-room, room:-room])
    smooth = ndi.gaussian_filter(filled.astype(np.float64), sigma=1) > 0.5
    outline: Labels = smooth.astype(np.uint8)
    return outline


def brain_reference(volume: npt.NDArray[np.float64]) -> Labels:
    """Outline every slice and apply the corrections."""
    slices = [brain_outline(volume[:, :, z]) for z in range(volume.shape[2])]
    mask = np.stack(slices, axis=2)
    for z, value, polygon in BRAIN_CORRECTIONS:
        fill(mask[:, :, z], polygon, value)
    return mask


def brain_scribbles(shape: tuple[int, ...]) -> Labels:
    """Paint the 3D strokes, each one slice thick."""
    scribbles = np.zeros(shape, dtype=np.uint8)
    for z, label, points in BRAIN_STROKES:
        paint(scribbles[:, :, z], points, BRAIN_BRUSH, label)
    return scribbles


def report(name: str, scribbles: Labels, reference: Labels) -> None:
    """Print what was drawn; raise if a stroke touches a pixel of the other class."""
    painted = scribbles > 0
    wrong = int((scribbles[painted] - 1 != reference[painted]).sum())
    if wrong:
        raise ValueError(f"{name}: {wrong} stroked pixels contradict the reference")
    counts = [int((scribbles == label).sum()) for label in (BACKGROUND, FOREGROUND)]
    print(
        f"{name}: {counts[0]} background and {counts[1]} foreground pixels stroked, "
        f"none wrong; {reference.mean():.4f} of the reference is foreground"
    )


def save_nifti(path: Path, labels: Labels, like: nib.Nifti1Image) -> None:
    """Save labels with the 3D geometry of ``like``, form codes included."""
    header = like.header.copy()
    header.extensions.clear()
    header.set_data_dtype(np.uint8)
    header.set_slope_inter(1, 0)
    # The display range of the scan would show labels 1 and 2 as black.
    header["cal_max"] = 0
    # With its own affine, a copied header keeps the qform and sform codes.
    image = nib.Nifti1Image(labels, like.affine, header)
    nib.save(image, path)


def main() -> None:
    """Check and write the four files."""
    DEMO_DIR.mkdir(parents=True, exist_ok=True)
    scribbles, reference = gland_scribbles(), gland_reference()
    report("glands", scribbles, reference)
    imsave(DEMO_DIR / "ihc_scribbles.png", scribbles, check_contrast=False)
    imsave(DEMO_DIR / "ihc_reference.png", reference, check_contrast=False)

    like = nib.Nifti1Image.from_filename(Path(str(data_path)) / "example4d.nii.gz")
    volume = np.asarray(like.dataobj, dtype=np.float64)[..., 0]
    scribbles, reference = brain_scribbles(volume.shape), brain_reference(volume)
    report("brain", scribbles, reference)
    save_nifti(DEMO_DIR / "brain_scribbles.nii.gz", scribbles, like)
    save_nifti(DEMO_DIR / "brain_reference.nii.gz", reference, like)


if __name__ == "__main__":
    main()
