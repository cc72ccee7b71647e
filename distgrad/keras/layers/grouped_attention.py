"""Attention in which several heads of queries share a head of keys and values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from distgrad.core.tensor import Tensor
from distgrad.keras.layers.attention import joint_mask, masked_softmax, near_masks, options_of
from distgrad.keras.layers.base import Layer
from distgrad.keras.layers.core import fraction, set_options, whole_number
from distgrad.keras.layers.einsum_dense import EinsumDense
from distgrad.ops import nn
from distgrad.ops.einsum import einsum
from distgrad.ops.layout import repeat
from distgrad.ops.shape import expand_dims


class GroupedQueryAttention(Layer):
    """Scaled dot-product attention with fewer heads of keys and values than of queries.

    ``call(query, value, key=None)`` takes tensors of shape (batch, time, features). A query attends
    to what no mask leaves out: ``attention_mask`` of shape (batch, queries, keys), the masks of the
    inputs, with ``use_causal_mask`` none after its own position, and with a ``sliding_window`` none
    that far away. A query that may attend to nothing gets what it gets in `MultiHeadAttention`.
    ``use_gate`` multiplies the heads with a projection of the query. With
    ``return_attention_scores`` the weights come with the output. ``flash_attention`` changes
    nothing. Raises ValueError for numbers that are not positive ints or do not divide. Source:
    Ainslie et al., 2023.
    """

    def __init__(
        self,
        head_dim: int,
        num_query_heads: int,
        num_key_value_heads: int,
        dropout: float = 0.0,
        use_bias: bool = True,
        sliding_window: int | None = None,
        flash_attention: bool | None = None,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        use_gate: bool = False,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        self.supports_masking = True
        self.head_dim = whole_number("head_dim", head_dim)
        self.num_query_heads = whole_number("num_query_heads", num_query_heads)
        self.num_key_value_heads = whole_number("num_key_value_heads", num_key_value_heads)
        if num_query_heads % num_key_value_heads:
            raise ValueError(
                "`num_query_heads` must be divisible by `num_key_value_heads`. "
                f"Received: {num_query_heads} and {num_key_value_heads}"
            )
        if sliding_window is not None:
            whole_number("sliding_window", sliding_window)
        self.dropout = fraction("dropout", dropout, below_one=True)
        self.use_bias = use_bias
        self.use_gate = use_gate
        self.sliding_window = sliding_window
        self.flash_attention = flash_attention
        set_options(
            self,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
        )
        self.seed = seed

    _keras_name = "GroupQueryAttention"  # in configs
    _not_in_config = (*Layer._not_in_config, "flash_attention")  # as in Keras

    def build(  # type: ignore[override]
        self, query_shape: Any, value_shape: Any, key_shape: Any = None
    ) -> None:
        key_shape = value_shape if key_shape is None else key_shape
        many = (None, self.num_query_heads, self.head_dim)
        few = (None, self.num_key_value_heads, self.head_dim)
        features = query_shape[-1]
        self._query_dense = self._dense("query", "bqm,muh->bquh", many, "uh", query_shape)
        self._key_dense = self._dense("key", "bkm,mvh->bkvh", few, "vh", key_shape)
        self._gate_dense = None
        if self.use_gate:
            self._gate_dense = self._dense(
                "gate", "bqm,muh->bquh", many, "uh", query_shape, activation="sigmoid"
            )
        self._value_dense = self._dense("value", "bkm,mvh->bkvh", few, "vh", value_shape)
        heads = (*query_shape[:-1], self.num_query_heads, self.head_dim)
        self._output_dense = self._dense(
            "attention_output", "bquh,uhm->bqm", (None, features), "m", heads
        )

    def _dense(
        self,
        name: str,
        equation: str,
        output: Sequence[Any],
        bias: str,
        shape: Any,
        activation: Any = None,
    ) -> EinsumDense:
        layer = EinsumDense(
            equation,
            output,
            activation=activation,
            bias_axes=bias if self.use_bias else None,
            **options_of(self),
            name=name,
            dtype=self.dtype_policy,
        )
        layer.supports_masking = True  # what the mask says is for its owner
        layer.build(tuple(shape))
        return layer

    def call(
        self,
        query: Tensor,
        value: Tensor,
        key: Tensor | None = None,
        query_mask: Any = None,
        value_mask: Any = None,
        key_mask: Any = None,
        attention_mask: Any = None,
        return_attention_scores: bool = False,
        training: bool = False,
        use_causal_mask: bool = False,
    ) -> Any:
        near = near_masks(query, value, use_causal_mask, self.sliding_window)
        mask = joint_mask(query_mask, value_mask, key_mask, attention_mask, *near)
        times = self.num_query_heads // self.num_key_value_heads
        heads = self._query_dense(query) * (1 / math.sqrt(self.head_dim))
        keys = repeat(self._key_dense(value if key is None else key), times, axis=2)
        values = repeat(self._value_dense(value), times, axis=2)
        scores = einsum("bquh,bkuh->buqk", heads, keys)
        mask = None if mask is None else expand_dims(mask, -3)
        zeroed = bool(self.dropout or return_attention_scores)
        weights = masked_softmax(scores, mask, zeroed=zeroed)
        used = nn.dropout(weights, self.dropout, seed=self.seed) if training else weights
        found = einsum("buqk,bkuh->bquh", used, values)
        if self._gate_dense is not None:
            found = found * self._gate_dense(query)
        output = self._output_dense(found)
        return (output, weights) if return_attention_scores else output

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        return previous_mask  # that of the query


GroupQueryAttention = GroupedQueryAttention  # the name under which Keras has it
