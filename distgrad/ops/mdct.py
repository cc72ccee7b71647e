"""The modified discrete cosine transform of overlapping frames, and its inverse (``tf.signal``)."""

from __future__ import annotations

import math
from typing import Any

from distgrad.core.dispatch import as_tensor
from distgrad.core.tensor import Tensor
from distgrad.ops.layout import reverse
from distgrad.ops.shape import concat, split
from distgrad.ops.signals import Window, dct, frame, overlap_and_add
from distgrad.ops.tapers import vorbis_window


def mdct(
    signals: Any,
    frame_length: Any,
    window_fn: Window | None = vorbis_window,
    pad_end: bool = False,
    norm: str | None = None,
    name: str | None = None,
) -> Tensor:
    """``[..., samples]`` as ``[..., frames, frame_length // 2]``; half of each frame overlaps.

    ``window_fn(frame_length, dtype=...)`` weighs the samples of a frame (``sqrt(1 / 2)`` for None),
    ``norm`` is that of ``dct``. Raises ValueError unless ``frame_length`` is a multiple of 4.
    """
    length = int(frame_length)
    if length % 4 or length < 4:
        raise ValueError(f"mdct: frame_length is a multiple of 4, not {length}")
    a, b, c, d = split(_weighed(frame(signals, length, length // 2, pad_end), window_fn), 4, -1)
    folded = concat([-reverse(c, [-1]) - d, a - reverse(b, [-1])], -1)
    return dct(folded, type=4, norm=norm)


def inverse_mdct(
    mdcts: Any,
    window_fn: Window | None = vorbis_window,
    norm: str | None = None,
    name: str | None = None,
) -> Tensor:
    """The signal whose frames ``mdct`` gives ``mdcts``, but for its first and last half frame.

    Raises ValueError for a norm other than None and "ortho".
    """
    x = as_tensor(mdcts)
    half = x._data.shape[-1]
    folded = dct(x, type=4, norm=norm)
    first, second = split(folded if norm else folded * (0.5 / half), 2, -1)
    frames = concat([second, -reverse(second, [-1]), -reverse(first, [-1]), -first], -1)
    return overlap_and_add(_weighed(frames, window_fn), half)


def _weighed(frames: Tensor, window_fn: Window | None) -> Tensor:
    if window_fn is None:
        return frames * math.sqrt(0.5)
    return frames * window_fn(frames._data.shape[-1], dtype=frames.dtype)
