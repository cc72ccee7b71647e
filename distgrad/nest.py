"""``tf.nest``."""

from __future__ import annotations

from typing import Any

from distgrad.core import tree
from distgrad.core.tree import assert_same_structure, flatten, map_structure, pack_sequence_as

__all__ = ["assert_same_structure", "flatten", "is_nested", "map_structure", "pack_sequence_as"]


def is_nested(seq: Any) -> bool:
    """Whether it is a list, tuple or dict; anything else is a leaf."""
    return tree.is_nested(seq)
