"""A strip below what scrolls in the dock: it offers something, and does not get in the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from qtpy.QtWidgets import QFrame, QGridLayout, QLabel, QPushButton, QSizePolicy, QVBoxLayout

IN_A_ROW = 2
"""Buttons side by side: the dock is narrow."""


@dataclass(frozen=True)
class Offer:
    """A sentence and the buttons that answer it.

    Attributes
    ----------
    key : str
        What it is about: a newer offer of the same key replaces it.
    text : str
    actions : tuple of (str, callable)
        Labels and what they do.
    lasting : tuple of str
        Labels of those that do not end the offer.
    about : tuple of object
        Without any of these there is nothing to offer.
    """

    key: str
    text: str
    actions: tuple[tuple[str, Callable[[], object]], ...]
    about: tuple[object, ...] = ()
    lasting: tuple[str, ...] = ()


class OfferPanel(QFrame):  # type: ignore[misc]
    """Shows one offer after the other; nothing where there is none."""

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("offer")
        self.setFrameShape(QFrame.Shape.StyledPanel)
        self.setStyleSheet("#offer { border: 1px solid #E69F00; border-radius: 4px; }")
        self.text = QLabel()
        self.text.setWordWrap(True)
        self.text.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self._grid = QGridLayout()
        box = QVBoxLayout(self)
        box.addWidget(self.text)
        box.addLayout(self._grid)
        self.buttons: list[QPushButton] = []
        self._waiting: list[Offer] = []
        self._show()

    @property
    def current(self) -> Offer | None:
        """The offer that is shown."""
        return self._waiting[0] if self._waiting else None

    def offer(self, offer: Offer) -> None:
        """Show an offer, or let it wait for its turn."""
        waiting = [offer if o.key == offer.key else o for o in self._waiting]
        self._waiting = waiting if offer in waiting else [*waiting, offer]
        self._show()

    def withdraw(self, key: str) -> None:
        """Take an offer back that is no longer good."""
        self._waiting = [o for o in self._waiting if o.key != key]
        self._show()

    def withdraw_about(self, gone: object) -> None:
        """Take back what cannot be done without something that is gone."""
        self._waiting = [o for o in self._waiting if all(one is not gone for one in o.about)]
        self._show()

    def _show(self) -> None:
        for button in self.buttons:
            self._grid.removeWidget(button)
            button.hide()  # until it is deleted it would lie over the next ones
            button.deleteLater()
        self.buttons = []
        offer = self.current
        self.setVisible(offer is not None)
        if offer is None:
            return
        self.text.setText(offer.text)
        for place, (label, action) in enumerate(offer.actions):
            button = QPushButton(label)
            answer = partial(self._answer, offer, label, action)
            button.clicked.connect(lambda _=False, answer=answer: answer())
            self._grid.addWidget(button, *divmod(place, IN_A_ROW))
            self.buttons.append(button)

    def _answer(self, offer: Offer, label: str, action: Callable[[], object]) -> None:
        if label not in offer.lasting:
            self.withdraw(offer.key)
        action()
