"""Scribbles and hand-checked reference masks of the two demo images."""
