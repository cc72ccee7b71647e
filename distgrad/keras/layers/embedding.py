"""Embedding: a vector for each integer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from distgrad.core.tensor import Tensor
from distgrad.core.user_line import warn
from distgrad.keras.layers.adapting import Adapted, Table
from distgrad.keras.layers.core import own_weight, set_options, whole_number
from distgrad.ops import nn
from distgrad.ops.casting import cast
from distgrad.ops.logic import not_equal
from distgrad.sparse.mixed import densified


class Embedding(Adapted):
    """Rows of a learned table ``[input_dim, output_dim]`` at integer inputs of any shape.

    ``mask_zero`` masks the steps that are 0. ``weights`` holds the table to start from. The
    gradient of the table is IndexedSlices. Raises ValueError for sizes that are not positive ints
    or a table of another shape, InvalidArgumentError for an input outside the table.
    """

    of_each_value = True
    takes_kinds = ("sparse",)
    one_tensor = True
    adapted = "embeddings"
    embeddings = Table()
    _fixed: ClassVar = {"quantization_config": None}
    casts_inputs = False  # an integer is exact, whatever the dtype of the vectors

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        embeddings_initializer: str | Callable[..., Any] = "uniform",
        embeddings_regularizer: str | Callable[..., Any] | None = None,
        embeddings_constraint: str | Callable[..., Any] | None = None,
        mask_zero: bool = False,
        weights: Any = None,
        **kwargs: Any,
    ) -> None:
        if "input_length" in kwargs:
            warn("input_length has no use: leave it out")
            kwargs.pop("input_length")
        super().__init__(**kwargs)
        self.input_dim = whole_number("input_dim", input_dim)
        self.output_dim = whole_number("output_dim", output_dim)
        set_options(
            self,
            embeddings_initializer=embeddings_initializer,
            embeddings_regularizer=embeddings_regularizer,
            embeddings_constraint=embeddings_constraint,
        )
        self.mask_zero = mask_zero
        self.supports_masking = mask_zero
        if weights is not None:
            self.build()
            self.set_weights(list(weights) if isinstance(weights, (list, tuple)) else [weights])

    def build(self, input_shape: Any = None) -> None:
        self.embeddings = own_weight(self, "embeddings", (self.input_dim, self.output_dim))
        self._adapt()

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments without the table: that is the layer's weight."""
        config = super().get_config()
        config.pop("weights", None)
        return config

    def compute_mask(self, inputs: Any, mask: Any = None) -> Tensor | None:
        return not_equal(inputs, 0) if self.mask_zero else None

    def call(self, x: Any) -> Tensor:
        x = densified(x)  # what has no value there is a 0
        if x._data.dtype.kind not in "iu":
            x = cast(x, "int32")
        return nn.embedding_lookup(self.embeddings, x)
