"""ReversibleEmbedding: rows of a table at numbers, and back from rows to a score of each number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distgrad.core.tensor import Tensor
from distgrad.keras.layers.core import own_weight
from distgrad.keras.layers.embedding import Embedding
from distgrad.ops.casting import cast
from distgrad.ops.linalg import matmul
from distgrad.ops.trigonometric import tanh


class ReversibleEmbedding(Embedding):
    """An `Embedding` that also goes back: ``call(x, reverse=True)`` gives ``x @ table.T``.

    With ``tie_weights=False`` it goes back by a table of its own. ``reverse_dtype`` is that of the
    way back, the layer's by default; ``logit_soft_cap`` c makes its results ``c * tanh(y / c)``.
    Raises ValueError as `Embedding` does. Source: Press and Wolf, 2017.
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        tie_weights: bool = True,
        embeddings_initializer: str | Callable[..., Any] = "uniform",
        embeddings_regularizer: str | Callable[..., Any] | None = None,
        embeddings_constraint: str | Callable[..., Any] | None = None,
        mask_zero: bool = False,
        reverse_dtype: Any = None,
        logit_soft_cap: float | None = None,
        **kwargs: Any,
    ) -> None:
        self.tie_weights = tie_weights
        super().__init__(
            input_dim,
            output_dim,
            embeddings_initializer,
            embeddings_regularizer,
            embeddings_constraint,
            mask_zero,
            **kwargs,
        )
        self.reverse_dtype = reverse_dtype
        self.logit_soft_cap = logit_soft_cap

    def build(self, input_shape: Any = None) -> None:
        super().build(input_shape)
        if not self.tie_weights:
            shape = (self.output_dim, self.input_dim)
            self.reverse_embeddings = own_weight(self, "reverse_embeddings", shape, "embeddings")

    def call(self, x: Tensor, reverse: bool = False) -> Tensor:
        if not reverse:
            y = super().call(x)
            mask = super().compute_mask(x)
            if mask is not None:
                y._keras_mask = mask
            return y
        dtype = self.reverse_dtype or self.compute_dtype
        x, tied = cast(x, dtype), self.tie_weights
        table = cast(self.embeddings if tied else self.reverse_embeddings, dtype)
        y = matmul(x, table, transpose_b=tied)
        cap = self.logit_soft_cap
        return y if cap is None else tanh(y / cap) * cap

    def compute_mask(self, inputs: Any, mask: Any = None) -> None:
        return None  # call sets that of the way forth
