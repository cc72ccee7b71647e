"""Histograms of the tiles of an image equalized, with a limit to the contrast."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from distgrad.core.primitive import bind
from distgrad.core.tensor import Tensor
from distgrad.keras.layers.core import whole_numbers
from distgrad.keras.layers.image_layer import ImageLayer, rescaled, value_bounds
from distgrad.ops.casting import cast
from distgrad.ops.clipping import clip, minimum
from distgrad.ops.indexing import gather, take_grad
from distgrad.ops.layout import beside
from distgrad.ops.logic import equal, select
from distgrad.ops.reduce import reduce_sum
from distgrad.ops.scan import cumsum
from distgrad.ops.shape import reshape

_BYTES = (0.0, 255.0)


class ContrastLimitedAdaptiveHistogramEqualization(ImageLayer):
    """The values of each channel spread by their frequencies in tiles, of which there is a grid.

    A value that fills more than ``clip_limit`` times an even share of a tile counts as that much,
    which keeps noise from being spread, too; 0 is no limit. Between the middles of tiles their
    tables are mixed. It acts always. Raises ValueError for a grid that is not positive ints.
    Source: Zuiderveld, 1994.
    """

    acts_always = True

    def __init__(
        self,
        value_range: Sequence[float] = (0, 255),
        clip_limit: float = 4.0,
        tile_grid_size: Sequence[int] = (8, 8),
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(data_format, **kwargs)
        self.value_range = value_bounds(value_range)
        self.clip_limit = clip_limit
        self.tile_grid_size = whole_numbers("tile_grid_size", tile_grid_size, 2)

    def augment(self, x: Tensor, training: bool) -> Tensor:
        batch, height, width, channels = x._data.shape
        values = cast(rescaled(x, self.value_range, _BYTES), np.float32)
        values = cast(clip(values, *_BYTES), np.int64)
        down, across = map(_Cuts, (height, width), self.tile_grid_size)
        values = gather(values, beside(x, down.mirrored), axis=1)
        values = gather(values, beside(x, across.mirrored), axis=2)
        tables = self._tables(values, down, across)
        # Where the tables of a pixel lie: of its image, its tile, its channel; then of its value.
        spread: Any = 0.0
        for row, above in down.near:
            for column, left in across.near:
                tile = (np.arange(batch)[:, None, None] * down.tiles + row[:, None]) * across.tiles
                place = ((tile + column)[..., None] * channels + np.arange(channels)) * 256
                found = gather(tables, beside(x, place) + values)
                share = (above[:, None] * left)[..., None].astype(np.float32)
                spread = spread + found * beside(x, share)
        found = rescaled(spread[:, :height, :width], _BYTES, self.value_range)
        return cast(found, x.dtype)

    def _tables(self, values: Tensor, down: _Cuts, across: _Cuts) -> Tensor:
        """What each of 256 values becomes in each tile and channel, one after the other."""
        batch, height, width, channels = values._data.shape
        tile = np.add.outer(
            np.add.outer(np.arange(batch) * down.tiles, np.arange(height) // down.length)
            * across.tiles,
            np.arange(width) // across.length,
        )
        place = (tile[..., None] * channels + np.arange(channels)) * 256
        at = reshape(beside(values, place) + values, (-1,))
        count = batch * down.tiles * across.tiles * channels
        ones = beside(values, np.ones(at._data.shape, np.float32))
        counts = reshape(bind(take_grad, ones, at, shape=(count * 256,), axis=0), (count, 256))
        pixels = float(down.length * across.length)
        if self.clip_limit > 0:
            kept = minimum(counts, self.clip_limit * pixels / 256.0)
            counts = kept + reduce_sum(counts - kept, [1], keepdims=True) / 256.0
        below = cumsum(counts, axis=1)
        least = below[:, :1]
        rest = pixels - least
        table = (below - least) * 255.0 / select(equal(rest, 0.0), 1.0, rest)
        return reshape(clip(table, *_BYTES), (-1,))


class _Cuts:
    """An axis cut into tiles of one length, with its end mirrored so that they fit.

    ``near`` are the two tiles around each place, and the shares that they have in it.
    """

    def __init__(self, size: int, tiles: int) -> None:
        self.tiles, self.length = tiles, -(-size // tiles)
        whole = self.length * tiles
        self.mirrored = np.pad(np.arange(size), (0, whole - size), "symmetric")
        place = (np.arange(whole) - self.length / 2) / self.length
        before = np.floor(place).astype(np.int64)
        after = place - before
        self.near = [
            (np.clip(before + step, 0, tiles - 1), share)
            for step, share in ((0, 1 - after), (1, after))
        ]
