"""The bases of layers that change images, most of them at random and in training alone.

All of these take [(batch,) height, width, channels], cast to floats, or a dict with such "images"
and "labels", and are the identity where ``training=False`` (unless they say otherwise). Each image
of a batch is changed by numbers of its own. These come from the stream in force, as those of
`Dropout` do: with virtual shards they do not depend on the number of workers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distgrad.core.tensor import Tensor
from distgrad.keras.layers.base import Layer
from distgrad.keras.layers.core import data_format_of
from distgrad.ops import random
from distgrad.ops.casting import cast
from distgrad.ops.logic import less
from distgrad.ops.shape import expand_dims, squeeze, transpose

Factor = float | Sequence[float]


def factor_range(name: str, value: Any, least: float, most: float) -> tuple[float, float]:
    """Two bounds, from one number f: (-f, f) as far as that goes. Raises ValueError."""
    if isinstance(value, (int, float)):
        low, high = max(-abs(value), least), abs(value)
        given = [value]
    elif isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2:
        given = list(value)
        low, high = sorted(given)
    else:
        raise ValueError(f"{name} must be a number or two of them, not {value!r}")
    if any(not isinstance(n, (int, float)) or not least <= n <= most for n in given):
        raise ValueError(f"{name} must lie between {least} and {most}, not be {value!r}")
    return low, high


def value_bounds(value_range: Any) -> tuple[float, float]:
    """The least and the largest value, in this order. Raises ValueError unless they are two."""
    if not isinstance(value_range, Sequence) or len(value_range) != 2:
        raise ValueError(f"value_range must be the least and the largest value, not {value_range}")
    low, high = sorted(map(float, value_range))
    return low, high


def rescaled(x: Tensor, old: tuple[float, float], new: tuple[float, float]) -> Tensor:
    """Values that lie in one range, moved to another."""
    if old == new:
        return x
    return (x - old[0]) / (old[1] - old[0]) * (new[1] - new[0]) + new[0]


class ImageLayer(Layer):
    """Base of these layers: ``augment`` gets images [batch, height, width, channels].

    Of a dict it changes the "images", and the "labels" where they change with them. Raises
    ValueError for a rank other than 3 and 4, an unknown data format, and for a dict without images
    or with bounding boxes or segmentation masks.
    """

    casts_inputs = True
    acts_always = False

    def __init__(self, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data_format = data_format_of(data_format)

    def _converted_input(self, value: Any, named: bool = False) -> Any:
        if not isinstance(value, Mapping):
            return super()._converted_input(value, named)
        if "images" not in value:
            raise ValueError(f"{self.name!r} takes an array or a dict with 'images', not {value!r}")
        if refused := {"bounding_boxes", "segmentation_masks"} & set(value):
            raise ValueError(
                f"{self.name!r} changes images and labels, and no {' or '.join(sorted(refused))}: "
                "leave them out of the dict"
            )
        return {**value, "images": super()._converted_input(value["images"]), **self._labels(value)}

    def _labels(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """The labels as a tensor, of integers where they are."""
        given = value.get("labels")
        return {} if given is None else {"labels": super()._converted_input(given, named=True)}

    def call(self, x: Any, training: bool = True) -> Any:
        if not isinstance(x, Mapping):
            return self._changed(x, None, training)[0]
        images, labels = self._changed(x["images"], x.get("labels"), training)
        return {**x, "images": images, **({} if labels is None else {"labels": labels})}

    def _changed(self, x: Tensor, labels: Any, training: bool) -> tuple[Tensor, Any]:
        rank = x._data.ndim
        if rank not in (3, 4):
            raise ValueError(
                f"{self.name!r} takes an image of rank 3 or a batch of rank 4, not an input of "
                f"shape {x._data.shape}"
            )
        if not training and not self.acts_always:
            return x, labels
        x = expand_dims(x, 0) if rank == 3 else x
        labels = expand_dims(labels, 0) if rank == 3 and labels is not None else labels
        first = self.data_format == "channels_first"
        x = transpose(x, (0, 2, 3, 1)) if first else x
        y, labels = self.augment_pair(x, labels, training)
        y = transpose(y, (0, 3, 1, 2)) if first else y
        if rank == 3:
            return squeeze(y, 0), None if labels is None else squeeze(labels, 0)
        return y, labels

    def augment_pair(self, x: Tensor, labels: Any, training: bool) -> tuple[Tensor, Any]:
        """Images and their labels (None without), which most of these layers leave alone."""
        return self.augment(x, training), labels

    def augment(self, x: Tensor, training: bool) -> Tensor:
        raise NotImplementedError


class Augmentation(ImageLayer):
    """Base of the random ones: what they draw, they draw with ``seed``."""

    def __init__(
        self, seed: int | None = None, data_format: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(data_format, **kwargs)
        self.seed = seed

    def _draw(self, shape: Sequence[int], low: float, high: float) -> Tensor:
        return random.uniform(tuple(shape), low, high, seed=self.seed)

    def _each(self, x: Tensor, low: float, high: float) -> Tensor:
        """A number for each image, in a shape that broadcasts with the images."""
        return cast(self._draw((x._data.shape[0], 1, 1, 1), low, high), x._data.dtype)

    def _chosen(self, x: Tensor, chances: tuple[float, float]) -> Tensor:
        """Whether an image is, for each of them, by a chance that is drawn from a range."""
        shape = (x._data.shape[0], 1, 1, 1)
        return less(self._draw(shape, 0.0, 1.0), self._draw(shape, *chances))
