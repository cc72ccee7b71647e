"""Attention: outputs that are averages of values, weighed by how keys match queries."""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from distgrad.core.tensor import Tensor
from distgrad.keras.initializers import over_axes
from distgrad.keras.layers.adapting import Adapted, Table
from distgrad.keras.layers.base import Layer
from distgrad.keras.layers.core import fraction, own_weight, set_options, whole_number
from distgrad.keras.layers.masking import drop_mask
from distgrad.ops import nn
from distgrad.ops.casting import cast
from distgrad.ops.constants import ones
from distgrad.ops.diagonal import band_part
from distgrad.ops.einsum import einsum
from distgrad.ops.exponential import sigmoid
from distgrad.ops.linalg import matmul, tensordot, triangle
from distgrad.ops.logic import logical_and, where
from distgrad.ops.reduce import reduce_sum
from distgrad.ops.shape import expand_dims, reshape
from distgrad.ops.trigonometric import tanh


class MultiHeadAttention(Layer):
    """Scaled dot-product attention in ``num_heads`` learnt projections at once.

    ``call(query, value, key=None)`` takes tensors of shape (batch, ..., features); ``key`` is
    ``value`` by default. A query attends to the positions along ``attention_axes`` (all but the
    first and the last by default) that no mask leaves out: ``attention_mask`` of shape (batch,
    queries, keys), the masks of the three inputs, and with ``use_causal_mask`` none after its own
    position, with a ``sliding_window`` none that far away. A query that may attend to nothing
    gets the mean of all values, as in Keras, and zero with dropout, with axes of one's own or where
    the weights are returned. ``use_gate`` multiplies the heads with a projection of the query. The
    output is projected to the features of ``query``, or to ``output_shape``; with
    ``return_attention_scores`` the weights of shape (batch, heads, queries, keys) come with it.
    The inputs keep their masks, so that a residual has one; Keras 3 takes them away in the call.
    ``flash_attention`` changes nothing. Raises ValueError for a number of heads, a window or a size
    that is not a positive int, a rate of dropout outside [0, 1), and shapes that do not go
    together. Vaswani et al., 2017.
    """

    def __init__(
        self,
        num_heads: int,
        key_dim: int,
        value_dim: int | None = None,
        dropout: float = 0.0,
        use_bias: bool = True,
        output_shape: int | Sequence[int] | None = None,
        attention_axes: int | Sequence[int] | None = None,
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
        self.num_heads = whole_number("num_heads", num_heads)
        self.key_dim = whole_number("key_dim", key_dim)
        self.value_dim = key_dim if value_dim is None else whole_number("value_dim", value_dim)
        self.dropout = fraction("dropout", dropout, below_one=True)
        self.use_bias = use_bias
        self.output_shape = _sizes("output_shape", output_shape)
        self.attention_axes = _sizes("attention_axes", attention_axes)
        if sliding_window is not None:
            whole_number("sliding_window", sliding_window)
        self.sliding_window = sliding_window
        self.flash_attention = flash_attention
        self.use_gate = use_gate
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

    _not_in_config = (*Layer._not_in_config, "flash_attention")  # as in Keras

    def build(  # type: ignore[override]
        self, query_shape: Any, value_shape: Any, key_shape: Any = None
    ) -> None:
        key_shape = value_shape if key_shape is None else key_shape
        if tuple(value_shape[1:-1]) != tuple(key_shape[1:-1]):
            raise ValueError(
                f"{self.name!r}: value and key have the same shape but for the last axis, got "
                f"{tuple(value_shape)} and {tuple(key_shape)}"
            )
        rank = len(query_shape)  # negative axes count in the unprojected query
        axes = self.attention_axes or range(1, rank - 1)
        self._axes = tuple(a % rank for a in axes)
        self._dot_product_equation, self._combine_equation = _equations(rank + 1, self._axes)
        heads, size = self.num_heads, self.value_dim
        output = self.output_shape or (query_shape[-1],)
        self.query_dense = self._projection("query", query_shape[-1:], (heads, self.key_dim))
        self.key_dense = self._projection("key", key_shape[-1:], (heads, self.key_dim))
        self.gate_dense = None
        if self.use_gate:
            self.gate_dense = self._projection("gate", query_shape[-1:], (heads, size))
        self.value_dense = self._projection("value", value_shape[-1:], (heads, size))
        self.output_dense = self._projection("attention_output", (heads, size), output)

    def _projection(self, name: str, taken: Sequence[int], given: Sequence[int]) -> _Projection:
        layer = _Projection(self, tuple(given), name=name, dtype=self.dtype_policy)
        layer.build(tuple(taken))
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
        key = value if key is None else key
        for each in (query, value, key):
            drop_mask(each)
        projected = self.query_dense(query), self.key_dense(key), self.value_dense(value)
        asked: dict[str, Any] = {"return_attention_scores": True} if return_attention_scores else {}
        found, weights = self._compute_attention(*projected, mask, training, **asked)
        if self.gate_dense is not None:
            found = found * sigmoid(self.gate_dense(query))
        output = self.output_dense(found)
        return (output, weights) if return_attention_scores else output

    def _compute_attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Any = None,
        training: bool = False,
        return_attention_scores: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Averages and weights of what was projected: what subclasses of Keras's layer override."""
        heads = query * (1 / math.sqrt(self.key_dim))
        scores = einsum(self._dot_product_equation, key, heads)
        zeroed = bool(self.dropout or return_attention_scores or len(query.shape) != 4)
        weights = self._masked_softmax(scores, attention_mask, zeroed)
        used = self._dropout_layer(weights, training=training)
        return einsum(self._combine_equation, used, value), weights

    # What such subclasses call and read.
    def _masked_softmax(self, scores: Tensor, mask: Any = None, zeroed: bool = True) -> Tensor:
        while mask is not None and len(mask.shape) < len(scores.shape):
            mask = expand_dims(mask, -2 * len(self._axes) - 1)  # the heads, then further batch axes
        return masked_softmax(scores, mask, len(self._axes), zeroed)

    def _dropout_layer(self, weights: Tensor, training: bool = False) -> Tensor:
        return nn.dropout(weights, self.dropout, seed=self.seed) if training else weights

    _num_heads = property(attrgetter("num_heads"))
    _key_dim = property(attrgetter("key_dim"))
    _value_dim = property(attrgetter("value_dim"))

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        return previous_mask  # that of the query


class _Projection(Adapted):
    """``tensordot(x, kernel) + bias`` over the last axes, with the settings of its owner."""

    supports_masking = True  # what the mask says is for its owner
    kernel_initializer: Any
    adapted = "kernel"
    kernel = Table()

    def __init__(self, owner: MultiHeadAttention, given: tuple[int, ...], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._given = given
        set_options(self, **options_of(owner))
        self._use_bias = owner.use_bias

    def build(self, taken: tuple[int, ...]) -> None:
        self._taken = len(taken)
        axes = range(len(taken) + len(self._given))
        self.kernel_initializer = over_axes(
            self.kernel_initializer, axes[: len(taken)], axes[len(taken) :]
        )
        self.kernel = own_weight(self, "kernel", (*taken, *self._given))
        self.bias = own_weight(self, "bias", self._given) if self._use_bias else None

    def call(self, x: Tensor) -> Tensor:
        y = tensordot(x, self.kernel, self._taken)
        return y if self.bias is None else y + self.bias


def options_of(layer: Layer) -> dict[str, Any]:
    """The options of kernels and biases of a layer, by name, for layers that it is made of."""
    kinds = "initializer", "regularizer", "constraint"
    names = [f"{weight}_{kind}" for weight in ("kernel", "bias") for kind in kinds]
    return {name: getattr(layer, name) for name in names}


def _equations(rank: int, axes: tuple[int, ...]) -> tuple[str, str]:
    """Einsum equations of the scores (key, query) and of the averages (scores, value).

    Query, key and value have axes (batch ..., attention ..., heads, features), in the order in
    which ``axes`` has them; scores have (batch ..., heads, queries ..., keys ...).
    """
    query = string.ascii_lowercase[:rank]
    fresh = iter(string.ascii_lowercase[rank:])
    key = "".join(next(fresh) if i in axes else letter for i, letter in enumerate(query))
    batch = "".join(query[i] for i in range(rank - 1) if i not in axes)
    scores = batch + "".join(query[i] for i in axes) + "".join(key[i] for i in axes)
    return f"{key},{query}->{scores}", f"{scores},{key}->{query}"


def masked_softmax(scores: Tensor, mask: Any, axes: int = 1, zeroed: bool = True) -> Tensor:
    """Softmax over the last ``axes`` axes together, with 0 where ``mask`` (bool) is false.

    Where the mask leaves nothing, all are 0, or the same if not ``zeroed``.
    """
    if mask is not None:
        scores = where(mask, scores, -3e4 if scores.dtype.size < 4 else -1e9)
    shape = scores.shape
    if axes > 1:
        scores = reshape(scores, (*shape[:-axes], -1))
    weights = reshape(nn.softmax(scores), shape) if axes > 1 else nn.softmax(scores)
    return where(mask, weights, 0) if zeroed and mask is not None else weights


def causal_mask(queries: int, keys: int) -> Tensor:
    """True where a key is not after the query, of shape (1, queries, keys)."""
    return cast(triangle(ones((1, queries, keys)), lower=True), "bool")


def _window_mask(queries: int, keys: int, size: int) -> Tensor:
    """True where a key is less than ``size`` away from the query, of shape (1, queries, keys)."""
    return cast(band_part(ones((1, queries, keys)), size - 1, size - 1), "bool")


def near_masks(query: Tensor, value: Tensor, causal: bool, window: int | None) -> tuple[Any, Any]:
    """`causal_mask` and `_window_mask` of what attends to what, each None where it is not asked."""
    sizes = query.shape[1], value.shape[1]
    return (
        causal_mask(*sizes) if causal else None,
        _window_mask(*sizes, window) if window else None,
    )


def joint_mask(query: Any, value: Any, key: Any, given: Any, *more: Any) -> Any:
    """What the masks of the three inputs, one that was given and ``more`` let pass, or None."""
    return _combined(
        None if query is None else expand_dims(cast(query, "bool"), -1),
        None if value is None else expand_dims(cast(value, "bool"), -2),
        None if key is None else expand_dims(cast(key, "bool"), -2),
        None if given is None else cast(given, "bool"),
        *more,
    )


def _combined(*masks: Any) -> Any:
    """What all masks let pass; None without any."""
    result = None
    for mask in masks:
        if mask is not None:
            result = mask if result is None else logical_and(result, mask)
    return result


def _sizes(name: str, value: Any) -> tuple[int, ...] | None:
    if value is None:
        return None
    sizes = (value,) if isinstance(value, int) else value
    if not isinstance(sizes, (list, tuple)) or not all(isinstance(n, int) for n in sizes):
        raise ValueError(f"{name} is an int or a list of ints, not {value!r}")
    return tuple(sizes)


class Attention(Layer):
    """Dot-product attention: ``softmax(query @ transpose(key)) @ value``.

    Called on a list [query, value] or [query, value, key] of tensors of shapes (batch, queries,
    features), (batch, keys, ...), (batch, keys, features). ``use_scale`` multiplies the scores
    with a weight; ``score_mode="concat"`` makes them a weight times
    ``sum(tanh(scale * (query + key)))``. ``mask`` is a list of a mask per tensor or None: that of
    the query zeroes outputs, that of the value leaves positions out; where nothing is left, all
    count the same. With ``return_attention_scores`` the weights come with the output, in training
    as dropout leaves them. Raises ValueError for a wrong mode or rate, and anything but such lists.
    """

    def __init__(
        self,
        use_scale: bool = False,
        score_mode: str = "dot",
        dropout: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if score_mode not in ("dot", "concat"):
            raise ValueError(f"score_mode is 'dot' or 'concat', not {score_mode!r}")
        self.supports_masking = True
        self.use_scale = use_scale
        self.score_mode = score_mode
        self.dropout = fraction("dropout", dropout, below_one=True)
        self.seed = seed
        self.scale: Any = None

    def build(self, input_shape: Any) -> None:
        self._check("inputs", input_shape)
        if self.use_scale:
            self.scale = self.add_weight((), "ones", name="scale")
        if self.score_mode == "concat":
            self.concat_score_weight = self.add_weight((), "ones", name="concat_score_weight")

    def _check(self, what: str, given: Any) -> None:
        """Raises ValueError for anything but a list of two or three."""
        if not isinstance(given, (list, tuple)) or len(given) not in (2, 3):
            raise ValueError(
                f"{self.name!r}: {what} is a list for [query, value] or [query, value, key], not "
                f"{given!r}"
            )
        if what == "inputs" and isinstance(given[0], int | None):
            raise ValueError(
                f"{self.name!r} takes a list of tensors [query, value] or [query, value, key], not "
                f"one of shape {tuple(given)}"
            )

    def _scores(self, query: Tensor, key: Tensor) -> Tensor:
        if self.score_mode == "dot":
            scores = matmul(query, key, transpose_b=True)
            return scores if self.scale is None else scores * self.scale
        both = expand_dims(query, -2) + expand_dims(key, -3)
        both = both if self.scale is None else both * self.scale
        return self.concat_score_weight * reduce_sum(tanh(both), -1)

    def call(
        self,
        inputs: list[Tensor],
        mask: Any = None,
        training: bool = False,
        return_attention_scores: bool = False,
        use_causal_mask: bool = False,
    ) -> Any:
        self._check("inputs", inputs)
        query, value = inputs[:2]
        if mask is not None:
            self._check("mask", mask)
        query_mask, value_mask = mask[:2] if mask else (None, None)
        scores = self._scores(query, inputs[2] if len(inputs) > 2 else value)
        before = causal_mask(scores.shape[-2], scores.shape[-1]) if use_causal_mask else None
        if value_mask is None:
            weights = masked_softmax(scores, before)
        else:  # what a query that sees nothing has got depends on the scores
            seen = _combined(expand_dims(cast(value_mask, "bool"), -2), before)
            low = 65504.0 if scores.dtype == "float16" else 1e9
            weights = nn.softmax(where(seen, scores, scores - low))
        if training:
            weights = nn.dropout(weights, self.dropout, seed=self.seed)
        output = matmul(weights, value)
        if query_mask is not None:
            output = where(expand_dims(cast(query_mask, "bool"), -1), output, 0)
        return (output, weights) if return_attention_scores else output

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        return mask[0] if isinstance(mask, (list, tuple)) else None


class AdditiveAttention(Attention):
    """Additive attention: scores are ``sum(scale * tanh(query + key))``, with a weight per feature.

    Called like `Attention`. Bahdanau et al., 2015.
    """

    def __init__(self, use_scale: bool = True, dropout: float = 0.0, **kwargs: Any) -> None:
        super().__init__(use_scale, dropout=dropout, **kwargs)

    def build(self, input_shape: Any) -> None:
        self._check("inputs", input_shape)
        if self.use_scale:
            self.scale = self.add_weight((input_shape[0][-1],), "glorot_uniform", name="scale")

    def _scores(self, query: Tensor, key: Tensor) -> Tensor:
        both = tanh(expand_dims(query, -2) + expand_dims(key, -3))
        return reduce_sum(both if self.scale is None else both * self.scale, -1)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["score_mode"]
        return config
