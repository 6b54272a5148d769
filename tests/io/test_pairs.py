"""Which label image belongs to which image."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from napari_msseg.errors import InputError
from napari_msseg.io.pairs import (
    LABEL_ENDINGS,
    Pair,
    Source,
    find_pairs,
    find_sources,
    image_files,
    stem,
)

Refuses = Callable[..., AbstractContextManager[None]]


def make(folder: Path, *names: str) -> Path:
    """Make files; pairing looks at names only, but empty ones are refused."""
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"x")
    return folder


def names(pairs: list[Pair]) -> list[tuple[str, str]]:
    return [(pair.image.name, pair.labels.name) for pair in pairs]


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.tif", "a"),
        ("a.OME.TIFF", "a"),
        ("a.nii.gz", "a"),
        ("a.b.nii", "a.b"),
        ("a.PNG", "a"),
        ("a.csv", "a.csv"),
        ("a", "a"),
    ],
)
def test_the_stem_is_the_name_without_the_whole_suffix(name: str, expected: str) -> None:
    assert stem(Path("folder") / name) == expected


def test_only_visible_readable_files_of_a_folder_count_by_name(tmp_path: Path) -> None:
    make(tmp_path, "b.tif", "a.nii.gz", "C.PNG", ".hidden.tif", "._a.tif", "notes.txt", "pairs.csv")
    make(tmp_path / "folder.tif")
    assert [path.name for path in image_files(tmp_path)] == ["C.PNG", "a.nii.gz", "b.tif"]


# -------------------------------------------------------------- folders


def test_equal_names_are_pairs_whatever_the_format(tmp_path: Path) -> None:
    images = make(tmp_path / "images", "b.jpg", "a.ome.tif", "c.nii.gz")
    labels = make(tmp_path / "labels", "a.png", "b.tif", "c.nii", "unused.tif")
    found = names(find_pairs(images, labels))
    assert found == [("a.ome.tif", "a.png"), ("b.jpg", "b.tif"), ("c.nii.gz", "c.nii")]


@pytest.mark.parametrize("ending", [*LABEL_ENDINGS, "_MASK"])
def test_a_label_may_have_an_ending(tmp_path: Path, ending: str) -> None:
    images = make(tmp_path / "images", "a.tif")
    labels = make(tmp_path / "labels", f"a{ending}.tif")
    assert names(find_pairs(images, labels)) == [("a.tif", f"a{ending}.tif")]


@pytest.mark.parametrize("ending", ["_mask", "-mask", "-labels"])
def test_the_very_name_is_preferred_to_one_with_an_ending(tmp_path: Path, ending: str) -> None:
    images = make(tmp_path / "images", "a.tif")
    labels = make(tmp_path / "labels", "a.png", f"a{ending}.png")
    assert names(find_pairs(images, labels)) == [("a.tif", "a.png")]


def test_an_image_may_have_the_ending_too(tmp_path: Path) -> None:
    # truths called a_mask against predictions called a: `evaluate`
    images = make(tmp_path / "images", "a_mask.tif", "b_mask.tif")
    labels = make(tmp_path / "labels", "a.tif", "b_mask.tif")
    found = names(find_pairs(images, labels))
    assert found == [("a_mask.tif", "a.tif"), ("b_mask.tif", "b_mask.tif")]


def test_a_name_that_only_begins_alike_is_no_partner(tmp_path: Path) -> None:
    images = make(tmp_path / "images", "a.tif", "a_1.tif")
    labels = make(tmp_path / "labels", "a.tif", "a_1_mask.tif", "a_10.tif")
    assert names(find_pairs(images, labels)) == [("a.tif", "a.tif"), ("a_1.tif", "a_1_mask.tif")]


@pytest.mark.parametrize("ending", LABEL_ENDINGS)
def test_labels_may_lie_beside_their_images(tmp_path: Path, ending: str) -> None:
    make(tmp_path, "a.tif", f"a{ending}.png", "b.png", f"b{ending}.png")
    expected = [("a.tif", f"a{ending}.png"), ("b.png", f"b{ending}.png")]
    assert names(find_pairs(tmp_path, tmp_path)) == expected
    assert names(find_pairs(tmp_path, tmp_path / "." / ".." / tmp_path.name)) == expected


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (["a.tif", "b.tif"], ["a.tif"], ["b.tif", "no partner", "b_mask"]),
        (["a.tif"], ["a.tif", "a.png"], ["a.tif", "a.png", "same name"]),
        (["a.tif", "a.png"], ["a.tif"], ["a.tif", "a.png", "keep one"]),
        (["a.tif", "a_mask.tif"], ["a.tif"], ["a_mask.tif", "a.tif", "keep one"]),
        (["notes.txt"], ["a.tif"], ["images", "holds no image"]),
        ([], [], ["images", "holds no image"]),
        (["a.tif"], [], ["a.tif", "no partner"]),
    ],
)
def test_folders_that_do_not_pair_are_refused(
    tmp_path: Path, images: list[str], labels: list[str], words: list[str]
) -> None:
    places = make(tmp_path / "images", *images), make(tmp_path / "labels", *labels)
    with pytest.raises(InputError) as caught:
        find_pairs(*places)
    for word in words:
        assert word in str(caught.value)


def test_beside_each_other_every_image_needs_its_labels(tmp_path: Path) -> None:
    make(tmp_path, "a.tif", "a_mask.tif", "b.tif")
    with pytest.raises(InputError, match=r"b\.tif: has no partner"):
        find_pairs(tmp_path, tmp_path)


def test_a_folder_that_cannot_be_listed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(InputError, match=r"images: cannot be listed \(Permission denied\)"):
        find_pairs(make(tmp_path / "images"), make(tmp_path / "labels"))


# ---------------------------------------------------------------- files


def test_two_files_are_a_pair_whatever_they_are_called(tmp_path: Path) -> None:
    make(tmp_path, "a.tif", "z.png")
    found = find_pairs(tmp_path / "a.tif", tmp_path / "z.png")
    assert found == [Pair(tmp_path / "a.tif", tmp_path / "z.png")]


# ---------------------------------------------------------------- lists


def read(tmp_path: Path, text: str, name: str = "pairs.csv") -> list[tuple[str, str]]:
    make(tmp_path / "data", "a.tif", "b, c.tif", "m.tif")
    (tmp_path / name).write_text(text, encoding="utf-8")
    return names(find_pairs(tmp_path / name, None))


@pytest.mark.parametrize(
    "text",
    [
        "data/a.tif,data/m.tif",
        "image,labels\ndata/a.tif,data/m.tif\n",
        "Images;Masks\r\ndata/a.tif;data/m.tif\r\n",
        "\ufeffimage\tlabels\ndata/a.tif\tdata/m.tif",
        "# made by hand\n\n data/a.tif , data/m.tif \n,,\n\n",
        "image,labels,\ndata/a.tif,data/m.tif,,\n",
        ",\nimage,labels\ndata/a.tif,data/m.tif\n",
    ],
)
def test_lists_may_have_a_header_comments_and_any_usual_delimiter(
    tmp_path: Path, text: str
) -> None:
    assert read(tmp_path, text) == [("a.tif", "m.tif")]


def test_a_quoted_name_may_hold_the_delimiter(tmp_path: Path) -> None:
    assert read(tmp_path, '"data/b, c.tif",data/m.tif') == [("b, c.tif", "m.tif")]


def test_the_order_of_a_list_is_kept_and_labels_may_come_twice(tmp_path: Path) -> None:
    found = read(tmp_path, "data/m.tif\tdata/a.tif\ndata/a.tif\tdata/a.tif\n", "pairs.tsv")
    assert found == [("m.tif", "a.tif"), ("a.tif", "a.tif")]


def test_absolute_names_are_taken_as_they_are(tmp_path: Path) -> None:
    folder = make(tmp_path / "elsewhere", "a.tif", "m.tif")
    (tmp_path / "pairs.txt").write_text(f"{folder / 'a.tif'},{folder / 'm.tif'}")
    (pair,) = find_pairs(tmp_path / "pairs.txt", None)
    assert pair == Pair(folder / "a.tif", folder / "m.tif")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("\n", "lists no images"),
        ("image,labels\n", "lists no images"),
        ("data/a.tif\n", "line 1"),
        ("# first\n\nimage,labels\ndata/a.tif,data/m.tif\n\ndata/a.tif\n", "line 6"),
        ("data/a.tif,data/m.tif,data/m.tif\n", "line 1"),
        ('"",\ndata/a.tif,data/m.tif', "line 1"),
        (f"{'a' * 200_000},b", "cannot be read as a list"),
    ],
)
def test_a_bad_list_names_itself_and_the_line(
    tmp_path: Path, refuses: Refuses, text: str, words: str
) -> None:
    make(tmp_path / "data", "a.tif", "m.tif")
    (tmp_path / "pairs.csv").write_text(text)
    with refuses(tmp_path / "pairs.csv", words):
        find_pairs(tmp_path / "pairs.csv", None)


def test_a_file_that_a_list_names_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.tif: no such file"):
        read(tmp_path, "data/a.tif,data/none.tif")


def test_a_list_of_bytes_is_no_text(tmp_path: Path, refuses: Refuses) -> None:
    (tmp_path / "pairs.csv").write_bytes(b"\xff\xfea\x00,\x00")
    with refuses(tmp_path / "pairs.csv", "not a text file"):
        find_pairs(tmp_path / "pairs.csv", None)


def test_a_list_and_labels_at_once_are_refused(tmp_path: Path, refuses: Refuses) -> None:
    make(tmp_path, "pairs.csv")
    with refuses(tmp_path / "pairs.csv", "give no LABELS"):
        find_pairs(tmp_path / "pairs.csv", tmp_path)


# --------------------------------------------- scribbles, labels or neither


def kinds(sources: list[Source]) -> list[tuple[str, str | None, bool]]:
    return [(s.image.name, s.labels and s.labels.name, s.scribbled) for s in sources]


def test_an_image_has_labels_or_scribbles_or_nothing(tmp_path: Path) -> None:
    images = make(tmp_path / "images", "a.tif", "b.png", "c.tif", "d.tif")
    labels = make(tmp_path / "labels", "a_mask.tif", "b.tif")
    strokes = make(tmp_path / "strokes", "b_scribbles.tif", "c.tif")
    assert kinds(find_sources(images, labels, strokes)) == [
        ("a.tif", "a_mask.tif", False),
        ("b.png", "b.tif", False),
        ("c.tif", "c.tif", True),
        ("d.tif", None, False),
    ]


def test_scribbles_may_lie_beside_their_images(tmp_path: Path) -> None:
    folder = make(tmp_path / "all", "a.tif", "a_scribbles.tif", "b.tif")
    assert kinds(find_sources(folder, None, folder)) == [
        ("a.tif", "a_scribbles.tif", True),
        ("b.tif", None, False),
    ]


def test_all_in_one_folder_is_told_apart_by_the_endings(tmp_path: Path) -> None:
    folder = make(
        tmp_path / "all", "a.tif", "a_mask.tif", "a_scribbles.tif", "b.tif", "b_scribbles.tif"
    )
    scribbled = [("a.tif", "a_scribbles.tif", True), ("b.tif", "b_scribbles.tif", True)]
    assert kinds(find_sources(folder, None, folder)) == scribbled
    dense = [("a.tif", "a_mask.tif", False), ("b.tif", "b_scribbles.tif", True)]
    assert kinds(find_sources(folder, folder, folder)) == dense


def test_scribbles_beside_the_images_that_belong_to_none_are_named(tmp_path: Path) -> None:
    folder = make(tmp_path / "all", "a.tif", "a_scribbles.tif", "c_scribbles.tif")
    with pytest.raises(InputError, match=r"c_scribbles\.tif: .* holds no image of that name"):
        find_sources(folder, None, folder)


def test_one_image_and_its_scribbles_are_a_source(tmp_path: Path) -> None:
    make(tmp_path, "a.tif", "strokes.tif")
    found = find_sources(tmp_path / "a.tif", None, tmp_path / "strokes.tif")
    assert kinds(found) == [("a.tif", "strokes.tif", True)]


def test_scribbles_of_no_image_are_named(tmp_path: Path) -> None:
    images = make(tmp_path / "images", "a.tif")
    strokes = make(tmp_path / "strokes", "a.tif", "aa.tif")
    with pytest.raises(InputError, match=r"aa\.tif: .* holds no image of that name"):
        find_sources(images, None, strokes)


@pytest.mark.parametrize(
    ("images", "labels", "strokes", "words"),
    [
        ("pairs.csv", None, "strokes", ["pairs.csv", "is a list"]),
        ("images", None, "nowhere", ["nowhere", "no such folder"]),
        ("images", "nowhere", "strokes", ["nowhere", "no such folder"]),
        ("images", None, "empty", ["empty", "no scribbles"]),
        ("images", None, "images/a.tif", ["a.tif", "no such folder"]),
        ("images/a.tif", None, "strokes", ["two folders or two files"]),
        ("images/a.tif", None, "images/none.tif", ["none.tif"]),
        ("images/a.tif", "strokes/a.tif", "strokes/a.tif", ["give one of them"]),
    ],
)
def test_a_wrong_place_for_scribbles_is_named(
    tmp_path: Path, images: str, labels: str | None, strokes: str, words: list[str]
) -> None:
    make(tmp_path / "images", "a.tif")
    make(tmp_path / "strokes", "a.tif")
    make(tmp_path / "empty")
    (tmp_path / "pairs.csv").write_text("a,b")
    with pytest.raises(InputError) as caught:
        find_sources(tmp_path / images, labels and tmp_path / labels, tmp_path / strokes)
    assert all(word in str(caught.value) for word in words)


# ---------------------------------------------------------------- tasks of the Decathlon


def task(folder: Path, about: object) -> Path:
    for name in ("imagesTr", "labelsTr", "imagesTs"):
        make(folder / name, "a.nii.gz", "b.nii.gz", "._a.nii.gz")
    (folder / "dataset.json").write_text(json.dumps(about), encoding="utf-8")
    return folder


def listed(*stems: str) -> dict[str, object]:
    entries = [
        {"image": f"./imagesTr/{stem}.nii.gz", "label": f"./labelsTr/{stem}.nii.gz"}
        for stem in stems
    ]
    return {"name": "Hippocampus", "training": entries, "test": ["./imagesTs/a.nii.gz"]}


def test_a_task_of_the_decathlon_lists_its_images(tmp_path: Path) -> None:
    folder = task(tmp_path, listed("b", "a"))
    assert find_pairs(folder, None) == [
        Pair(folder / "imagesTr" / name, folder / "labelsTr" / name)
        for name in ("b.nii.gz", "a.nii.gz")
    ]


def test_the_folders_of_a_task_are_pairs_too(tmp_path: Path) -> None:
    """Whatever a Mac left beside the files."""
    folder = task(tmp_path, {})
    found = find_pairs(folder / "imagesTr", folder / "labelsTr")
    assert names(found) == [("a.nii.gz", "a.nii.gz"), ("b.nii.gz", "b.nii.gz")]


@pytest.mark.parametrize(
    "about", [{}, {"training": []}, {"training": ["a"]}, {"training": [{"image": "a"}]}, [], 3]
)
def test_a_task_that_lists_nothing_is_named(
    tmp_path: Path, refuses: Refuses, about: object
) -> None:
    folder = task(tmp_path, about)
    with refuses(folder / "dataset.json"):
        find_pairs(folder, None)


def test_a_file_that_a_task_lacks_is_named(tmp_path: Path, refuses: Refuses) -> None:
    folder = task(tmp_path, listed("a", "c"))
    with refuses(folder / "imagesTr" / "c.nii.gz"):
        find_pairs(folder, None)


def test_a_task_that_is_no_json_is_named(tmp_path: Path, refuses: Refuses) -> None:
    folder = task(tmp_path, {})
    (folder / "dataset.json").write_bytes(b"\xff{")
    with refuses(folder / "dataset.json"):
        find_pairs(folder, None)
