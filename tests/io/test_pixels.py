"""Axes: the user's word, then the file's, then a guess."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_msseg.io.pixels import Pixels, to_volume

PATH = Path("image.tif")


@pytest.mark.parametrize(
    ("shape", "file", "user", "axes", "result"),
    [
        ((1, 5, 1, 12, 14, 1), "TZCYXS", None, "ZYX", (5, 12, 14)),
        ((1, 5, 1, 12, 14, 3), "TZCYXS", None, "ZYXC", (5, 12, 14, 3)),
        ((1, 1, 1, 12, 14, 1), "TZCYXS", None, "YX", (12, 14)),
        ((1, 1, 1, 12, 14, 1), "TZCYXS", "ZYX", "ZYX", (1, 12, 14)),
        ((1, 5, 1, 12, 14, 1), "TZCYXS", "zcyx", "ZCYX", (5, 1, 12, 14)),
        ((5, 12, 14), "TYX", "ZYX", "ZYX", (5, 12, 14)),
        ((1, 5, 1, 1, 12, 14), "TZCYXS"[:4] + "YX", "CYX", "CYX", (5, 12, 14)),
        ((5, 12, 14), "IYX", None, "ZYX", (5, 12, 14)),
        ((5, 12, 14, 1), "IYXS", None, "ZYX", (5, 12, 14)),
        ((12, 14, 3), "QQQ", None, "YXC", (12, 14, 3)),
        ((12, 14, 1), "QYX", None, "YX", (12, 14)),
        ((1, 12, 14), "QYX", None, "YX", (12, 14)),
        ((3, 12, 14), "SYX", None, "CYX", (3, 12, 14)),
        ((14, 12, 5), "XYZ", None, "ZYX", (5, 12, 14)),
        ((2, 1, 12, 14), "TCYX", None, "TYX", (2, 12, 14)),
        ((2, 3, 5, 12, 14), "QQQYX", "TCZYX", "TCZYX", (2, 3, 5, 12, 14)),
    ],
)
def test_axes_are_settled(
    shape: tuple[int, ...], file: str, user: str | None, axes: str, result: tuple[int, ...]
) -> None:
    volume = to_volume(PATH, Pixels(np.zeros(shape), file), user, None)
    assert (volume.axes, volume.data.shape) == (axes, result)


@pytest.mark.parametrize("shape", [(2, 3, 5, 12, 14), (2, 5, 12, 14)])
def test_more_axes_than_can_be_guessed_ask_for_the_option(shape: tuple[int, ...], refuses) -> None:
    with refuses(PATH, "--axes"):
        to_volume(PATH, Pixels(np.zeros(shape), "Q" * len(shape)), None, None)


@pytest.mark.parametrize("axes", ["YX", "XYZ", "ZZYX", "abc"])
def test_axes_of_the_user_that_do_not_fit_are_refused(axes: str, refuses) -> None:
    with refuses(PATH, "axes"):
        to_volume(PATH, Pixels(np.zeros((5, 12, 14)), "ZYX"), axes, None)


def test_channels_beside_colour_samples_are_refused(refuses) -> None:
    with refuses(PATH, "samples"):
        to_volume(PATH, Pixels(np.zeros((2, 12, 14, 3)), "CYXS"), None, None)


def test_spacing_of_the_user_wins_and_the_matrix_follows() -> None:
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    affine[:3, 3] = 7
    pixels = Pixels(
        np.zeros((5, 12, 14)), "ZYX", spacing={"Z": 2.0, "Y": 3.0, "X": 4.0}, affine=affine
    )
    assert to_volume(PATH, pixels, None, None).spacing == (2.0, 3.0, 4.0)
    volume = to_volume(PATH, pixels, None, (1.0, 6.0, 4.0))
    assert volume.spacing == (1.0, 6.0, 4.0)
    assert volume.affine is not None
    assert np.allclose(np.diag(volume.affine), [1, 6, 4, 1])
    assert np.allclose(volume.affine[:3, 3], 7)


@pytest.mark.parametrize("spacing", [(1.0,), (1.0, 0.0, 1.0), (1.0, -1.0, 1.0)])
def test_an_impossible_spacing_is_refused(spacing: tuple[float, ...], refuses) -> None:
    pixels = Pixels(np.zeros((5, 12, 14)), "ZYX", affine=np.eye(4))
    with refuses(PATH, "spacing"):
        to_volume(PATH, pixels, None, spacing)


def test_a_matrix_without_inverse_is_left_out() -> None:
    pixels = Pixels(np.zeros((5, 12, 14)), "ZYX", affine=np.zeros((4, 4)))
    assert to_volume(PATH, pixels, None, None).affine is None


def test_the_matrix_is_left_out_where_the_user_turns_time_into_depth() -> None:
    pixels = Pixels(np.zeros((5, 12, 14)), "TYX", affine=np.eye(4), nifti_header=b"x")
    volume = to_volume(PATH, pixels, "ZYX", None)
    assert volume.affine is None
    assert volume.nifti_header is None
