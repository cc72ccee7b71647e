"""Each image of a batch, and its label, mixed with those of another one in training."""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.core.dtypes import is_floating
from distgrad.core.tensor import Tensor
from distgrad.keras.layers.erasing import inside_boxes
from distgrad.keras.layers.image_layer import Augmentation, Factor, factor_range
from distgrad.ops import random
from distgrad.ops.casting import cast
from distgrad.ops.distributions import gamma
from distgrad.ops.exponential import log, sigmoid
from distgrad.ops.indexing import gather
from distgrad.ops.layout import beside
from distgrad.ops.logic import select
from distgrad.ops.powers import sqrt
from distgrad.ops.shape import reshape


class _Mixing(Augmentation):
    """Base of both: ``mixed`` gives the images and what share of each label remains.

    Labels are one-hot or otherwise [batch, classes], and become floats. Raises ValueError for
    labels of another rank.
    """

    def augment_pair(self, x: Tensor, labels: Any, training: bool) -> tuple[Tensor, Any]:
        if labels is not None and labels._data.ndim != 2:
            raise ValueError(
                f"{self.name!r} mixes labels of shape (batch, classes), not {labels.shape}: make "
                "class numbers one-hot first, with keras.ops.one_hot"
            )
        order = random.shuffle(beside(x, np.arange(x._data.shape[0])), seed=self.seed)
        y, share = self.mixed(x, gather(x, order))
        if labels is None:
            return y, None
        if not is_floating(labels._data.dtype):
            labels = cast(labels, self.compute_dtype)
        share = cast(reshape(share, (-1, 1)), labels._data.dtype)
        return y, share * labels + (1.0 - share) * gather(labels, order)

    def mixed(self, x: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def _beta(self, shape: tuple[int, ...], alpha: Any) -> Tensor:
        """Numbers of the beta distribution whose two parameters are ``alpha``.

        They are made of logarithms of gamma numbers, which do not vanish where it is small.
        """

        def log_gamma() -> Tensor:
            more = gamma(shape, alpha + 1.0, seed=self.seed)
            least = float(np.finfo(np.float32).tiny)
            return log(more) + log(self._draw(shape, 0.0, 1.0) + least) / alpha

        return sigmoid(log_gamma() - log_gamma())


class MixUp(_Mixing):
    """``w * image + (1 - w) * another one``, with w from the beta distribution (alpha, alpha).

    Raises ValueError unless ``alpha`` is a positive number.
    """

    def __init__(
        self,
        alpha: float = 0.2,
        data_format: str | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed, data_format, **kwargs)
        if not isinstance(alpha, (int, float)) or not alpha > 0:
            raise ValueError(f"alpha must be a positive number, not {alpha!r}")
        self.alpha = alpha

    def mixed(self, x: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        weight = self._beta((x._data.shape[0], 1, 1, 1), float(self.alpha))
        share = cast(weight, x._data.dtype)
        return share * x + (1.0 - share) * other, weight


class CutMix(_Mixing):
    """A box of each image taken from another one; the labels are mixed by the area of the box.

    The area is drawn from the beta distribution (a, a), with one a from ``factor`` for a batch; one
    number f is (0, f). Raises ValueError for a factor outside [0, 1].
    """

    def __init__(
        self,
        factor: Factor = 1.0,
        seed: int | None = None,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed, data_format, **kwargs)
        self.factor = factor_range("factor", factor, 0.0, 1.0)

    def mixed(self, x: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        shape = (x._data.shape[0], 1, 1, 1)
        weight = self._beta(shape, self._draw((), *self.factor) + 1e-6)
        side = sqrt(1.0 - weight)
        down, across = ((side, self._draw(shape, 0.0, 1.0)) for _ in range(2))
        return select(inside_boxes(x, down, across), other, x), weight
