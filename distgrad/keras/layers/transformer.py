"""What language models are made of: embedded tokens with their places, and blocks of attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distgrad.core.tensor import Tensor
from distgrad.keras.layers.attention import MultiHeadAttention
from distgrad.keras.layers.base import Layer
from distgrad.keras.layers.core import Dense, fraction, known_size, set_options, whole_number
from distgrad.keras.layers.embedding import Embedding
from distgrad.keras.layers.normalization import LayerNormalization
from distgrad.keras.layers.regularization import Dropout


class TokenAndPositionEmbedding(Layer):
    """A learned vector for each token, plus one for its place.

    Integers (batch, steps) below ``vocabulary_size`` become (batch, steps, ``embedding_dim``);
    there may be up to ``sequence_length`` steps. ``mask_zero`` masks the steps that are 0. Raises
    ValueError for sizes that are not positive ints, another rank and too many steps, and
    InvalidArgumentError for a token outside the vocabulary. As in KerasHub.
    """

    casts_inputs = False
    embeddings_initializer: Any

    def __init__(
        self,
        vocabulary_size: int,
        sequence_length: int,
        embedding_dim: int,
        embeddings_initializer: str | Callable[..., Any] = "uniform",
        mask_zero: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.vocabulary_size = whole_number("vocabulary_size", vocabulary_size)
        self.sequence_length = whole_number("sequence_length", sequence_length)
        self.embedding_dim = whole_number("embedding_dim", embedding_dim)
        set_options(self, embeddings_initializer=embeddings_initializer)
        self.mask_zero = mask_zero
        self.supports_masking = mask_zero
        options: dict[str, Any] = {
            "embeddings_initializer": self.embeddings_initializer,
            "dtype": self.dtype_policy,
        }
        self.token_embedding = Embedding(
            vocabulary_size, embedding_dim, mask_zero=mask_zero, name="token_embedding", **options
        )
        self.position_embedding = Embedding(
            sequence_length, embedding_dim, name="position_embedding", **options
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if len(input_shape) != 2:
            raise ValueError(
                f"{self.name!r} takes tokens of shape (batch, steps), not {tuple(input_shape)}"
            )
        self.token_embedding.build(input_shape)
        self.position_embedding.build((self.sequence_length,))

    def call(self, tokens: Tensor) -> Tensor:
        steps = tokens.shape[1]
        if steps > self.sequence_length:
            raise ValueError(
                f"{self.name!r} has places for {self.sequence_length} steps, and got {steps}: "
                "raise sequence_length"
            )
        return self.token_embedding(tokens) + self.position_embedding.embeddings[:steps]

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        return self.token_embedding.compute_mask(inputs)


class TransformerBlock(Layer):
    """Causal self-attention, then two dense layers, each added to its own input.

    Inputs and outputs have shape (batch, steps, features); ``num_heads`` divides the features.
    Each half ends in ``dropout``, which also acts on the attention's weights. With
    ``normalize_first`` it begins with a layer normalization, else one follows the sum. Raises
    ValueError for sizes that are not positive ints, a rate outside [0, 1), and features that the
    heads do not divide. KerasHub's TransformerDecoder without an encoder, with gelu as its
    activation; Vaswani et al., 2017.
    """

    supports_masking = True
    activation: Callable[..., Any]
    kernel_initializer: Any
    bias_initializer: Any

    def __init__(
        self,
        intermediate_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        activation: str | Callable[..., Any] = "gelu",
        layer_norm_epsilon: float = 1e-5,
        kernel_initializer: str | Callable[..., Any] = "glorot_uniform",
        bias_initializer: str | Callable[..., Any] = "zeros",
        normalize_first: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.intermediate_dim = whole_number("intermediate_dim", intermediate_dim)
        self.num_heads = whole_number("num_heads", num_heads)
        self.dropout = fraction("dropout", dropout, below_one=True)
        self.layer_norm_epsilon = layer_norm_epsilon
        self.normalize_first = normalize_first
        set_options(
            self,
            activation=activation,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if len(input_shape) != 3:
            raise ValueError(
                f"{self.name!r} takes inputs of shape (batch, steps, features), not "
                f"{tuple(input_shape)}"
            )
        features = known_size(self, input_shape, -1)
        if features % self.num_heads:
            raise ValueError(
                f"{self.name!r}: {self.num_heads} heads cannot share {features} features evenly"
            )
        dtype: dict[str, Any] = {"dtype": self.dtype_policy}
        dense: dict[str, Any] = {
            "kernel_initializer": self.kernel_initializer,
            "bias_initializer": self.bias_initializer,
            **dtype,
        }
        epsilon, wide = self.layer_norm_epsilon, (*input_shape[:-1], self.intermediate_dim)
        self.attention = MultiHeadAttention(
            self.num_heads,
            features // self.num_heads,
            dropout=self.dropout,
            name="self_attention",
            **dense,
        )
        self.attention_norm = LayerNormalization(
            epsilon=epsilon, name="self_attention_layer_norm", **dtype
        )
        self.intermediate = Dense(
            self.intermediate_dim, self.activation, name="feedforward_intermediate_dense", **dense
        )
        self.output_dense = Dense(features, name="feedforward_output_dense", **dense)
        self.feedforward_norm = LayerNormalization(
            epsilon=epsilon, name="feedforward_layer_norm", **dtype
        )
        self.drop = Dropout(self.dropout, name="dropout", **dtype)
        self.attention.build(input_shape, input_shape)
        self.attention_norm.build(input_shape)
        self.intermediate.build(input_shape)
        self.output_dense.build(wide)
        self.feedforward_norm.build(input_shape)

    def call(self, x: Tensor, mask: Any = None) -> Tensor:
        x = self._half(x, self.attention_norm, lambda y: self._attend(y, mask))
        return self._half(x, self.feedforward_norm, self._transform)

    def _half(self, x: Tensor, norm: Layer, inner: Callable[[Tensor], Tensor]) -> Tensor:
        if self.normalize_first:
            return x + self.drop(inner(norm(x)))
        return norm(x + self.drop(inner(x)))

    def _attend(self, x: Tensor, mask: Any) -> Tensor:
        # Steps that the mask leaves out are seen by nobody; what they become does not matter.
        return self.attention(x, x, value_mask=mask, use_causal_mask=True)

    def _transform(self, x: Tensor) -> Tensor:
        return self.output_dense(self.intermediate(x))
