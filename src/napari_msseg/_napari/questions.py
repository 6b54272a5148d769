"""What the dock asks: each question with its answers, in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from napari.layers import Image, Labels

from napari_msseg._napari.offers import Offer
from napari_msseg.pieces import count_pieces
from napari_msseg.saved_session import SavedSession

FORGOTTEN, MISSED, DOUBT, SWITCH, CLASSES, LOCKED = (
    "reset",
    "missed",
    "doubt",
    "switch",
    "classes",
    "locked",
)
"""Keys of offers of which there is one at a time."""
Action = Callable[[], object]


def _nothing() -> None:
    """Do so: the question is answered."""


def kept_key(image: Image) -> str:
    """Return the key of the offer of what was kept for an image."""
    return f"kept {id(image)}"


def go_on_with_kept(
    image: Image,
    saved: SavedSession,
    restore: Action,
    older: SavedSession | None = None,
    restore_older: Action = _nothing,
) -> Offer:
    """Ask whether to go on with the strokes that earlier sessions left for an image.

    Those of the last one, or of one before that somebody has started afresh after.
    """
    text, actions = (
        f"{_strokes(saved)} were kept for “{image.name}”",
        [("Go on with them", restore)],
    )
    if older is not None:
        text += f", and {_strokes(older)} from before"
        actions.append(("Those of before", restore_older))
    return Offer(
        key=kept_key(image),
        text=f"{text}.",
        actions=(*actions, ("Start afresh", _nothing)),
        about=(image,),
    )


def _strokes(saved: SavedSession) -> str:
    when = datetime.fromisoformat(saved.saved_at).astimezone().strftime("%d %b %Y, %H:%M")
    n = sum(count_pieces(saved.scribbles))
    return f"{n} stroke{'s' * (n != 1)} of {when}"


def bring_forgotten_back(image: Image, prediction: Labels, bring_back: Action) -> Offer:
    """Ask whether a Reset was meant."""
    return Offer(
        key=FORGOTTEN,
        text=f"Model and prediction of “{image.name}” are cleared. Strokes stay.",
        actions=(("Bring them back", bring_back), ("All right", _nothing)),
        about=(image, prediction),
    )


def move_stroke(layer: Labels, scribbles: Labels, move: Action, leave: Action) -> Offer:
    """Ask whether to move a stroke from a layer that nobody trains on."""
    return Offer(
        key=MISSED,
        text=f"That stroke is on “{layer.name}”, which is not trained on. Move it to "
        f"“{scribbles.name}”?",
        actions=(("Move it", move), ("Leave it there", leave)),
        about=(layer, scribbles),
    )


def look_at_doubtful(question: str, image: Image, scribbles: Labels, show: Action) -> Offer:
    """Ask about a stroke that the others contradict."""
    return Offer(
        key=DOUBT,
        text=question,
        actions=(("Show it", show), ("It is right", _nothing)),
        about=(image, scribbles),
        lasting=("Show it",),  # who looks has not answered yet
    )


def train_on_chosen(scribbles: Labels, trained_on: Labels, train: Action) -> Offer:
    """Ask whether to train on what is chosen, where something else is trained on."""
    return Offer(
        key=SWITCH,
        text=f"“{scribbles.name}” is chosen, but “{trained_on.name}” is trained on.",
        actions=(("Train on the chosen", train), ("Go on as it is", _nothing)),
    )


def keep_classes(names: Sequence[str], owner: str, scribbles: Labels, begin: Action) -> Offer:
    """Ask whether classes that were made for another image are meant for this one, too."""
    return Offer(
        key=CLASSES,
        text=f"The classes are those of “{owner}”: {', '.join(names)}.",
        actions=(("Keep them", _nothing), ("Begin with two", begin)),
        about=(scribbles,),
    )


def unlock_again(words: str, image: Image, take_back: Action) -> Offer:
    """Ask whether so much was meant to be locked, or unlocked."""
    return Offer(
        key=LOCKED,
        text=words,
        actions=(("Take it back", take_back), ("It is meant so", _nothing)),
        about=(image,),
    )
