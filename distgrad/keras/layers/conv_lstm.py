"""Convolutional LSTM: the gates are convolutions over images, one for each step of time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from distgrad.core.tensor import Tensor
from distgrad.keras import registry
from distgrad.keras.layers.base import Layer
from distgrad.keras.layers.convolution import Sizes
from distgrad.keras.layers.core import (
    data_format_of,
    fraction,
    known_size,
    one_of,
    own_weight,
    set_options,
    whole_number,
    whole_numbers,
)
from distgrad.keras.layers.recurrent import RNN
from distgrad.keras.layers.recurrent_cells import remembering_bias
from distgrad.ops import convolution, nn
from distgrad.ops.casting import cast
from distgrad.ops.constants import ones, zeros
from distgrad.ops.shape import split, transpose, unstack
from distgrad.ops.windows import channels_last

_GATES = 4  # input, forget, candidate, output


class ConvLSTMCell(Layer):
    """One step of a `ConvLSTM2D`, or its like of another ``rank``: the number of spatial axes.

    States are the output and the carry, images of ``filters`` channels.
    """

    activation: Callable[..., Any]
    recurrent_activation: Callable[..., Any]
    bias_initializer: Any
    bias_regularizer: Any
    bias_constraint: Any

    def __init__(
        self,
        rank: int,
        filters: int,
        kernel_size: Sizes,
        strides: Sizes = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Sizes = 1,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        unit_forget_bias: bool = True,
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.rank = rank
        self.filters = whole_number("filters", filters)
        self.kernel_size = whole_numbers("kernel_size", kernel_size, rank)
        self.strides = whole_numbers("strides", strides, rank)
        self.padding = one_of("padding", str(padding).lower(), "valid", "same")
        self.data_format = data_format_of(data_format)
        self.dilation_rate = whole_numbers("dilation_rate", dilation_rate, rank)
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            raise ValueError(
                f"strides {self.strides} and dilation_rate {self.dilation_rate}: only one of them "
                "may be above 1"
            )
        self.use_bias, self.unit_forget_bias = use_bias, unit_forget_bias
        self.dropout = fraction("dropout", dropout, below_one=True)
        self.recurrent_dropout = fraction("recurrent_dropout", recurrent_dropout, below_one=True)
        self.seed = seed
        set_options(
            self,
            activation=activation,
            recurrent_activation=recurrent_activation,
            kernel_initializer=kernel_initializer,
            recurrent_initializer=recurrent_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            recurrent_regularizer=recurrent_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            recurrent_constraint=recurrent_constraint,
            bias_constraint=bias_constraint,
        )

    state_size = (-1, -1)  # of images: `get_initial_state` knows their shape

    @property
    def _first(self) -> bool:
        return self.data_format == "channels_first"

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        axis = 1 if self._first else self.rank + 1
        channels = known_size(self, input_shape, axis)
        space = input_shape[2:] if self._first else input_shape[1:-1]
        if None in space:
            raise ValueError(
                "ConvLSTM layers only support static input shapes for the spatial dimension. "
                f"Received invalid input shape: input_shape={tuple(input_shape)}"
            )
        self._sizes = [int(n) for n in space if n is not None]
        columns = _GATES * self.filters
        self.kernel = own_weight(self, "kernel", (*self.kernel_size, channels, columns))
        self.recurrent_kernel = own_weight(
            self, "recurrent_kernel", (*self.kernel_size, self.filters, columns), "recurrent"
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                (columns,),
                self._initial_bias,
                name="bias",
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )

    def _initial_bias(self, shape: tuple[int, ...], dtype: Any) -> Tensor:
        if not self.unit_forget_bias:
            return self.bias_initializer(shape, dtype=dtype)
        return remembering_bias(self.bias_initializer, self.filters, dtype)

    def get_initial_state(self, batch_size: int) -> list[Tensor]:
        """Zeros, of the shape that the images have after a convolution of the inputs."""
        lengths = []
        for axis, n in enumerate(self._sizes):
            window = (self.kernel_size[axis] - 1) * self.dilation_rate[axis] + 1
            fits = n if self.padding == "same" else n - window + 1
            lengths.append(-(-fits // self.strides[axis]))
        shape = (self.filters, *lengths) if self._first else (*lengths, self.filters)
        return [zeros((batch_size, *shape), self.compute_dtype) for _ in range(2)]

    def masks(self, inputs: Tensor, state: Tensor, training: bool) -> tuple[Any, Any]:
        """Dropout of the inputs and of the outputs, for each gate: drawn once for all steps."""
        rates = (self.dropout, self.recurrent_dropout) if training else (0.0, 0.0)
        one, other = (
            unstack(nn.dropout(ones((_GATES, *x.shape), x.dtype), rate, seed=self.seed))
            if rate
            else None
            for x, rate in zip((inputs, state), rates, strict=True)
        )
        return one, other

    def call(self, inputs: Tensor, states: Any, training: bool = False) -> tuple[Tensor, list]:
        return self.step(inputs, states, self.masks(inputs, states[0], training))

    def step(self, inputs: Tensor, states: Any, masks: tuple[Any, Any]) -> tuple[Tensor, list]:
        """The output and the new states."""
        h, c = states
        x = self._gates(inputs, self.kernel, masks[0], self._slide)
        y = self._gates(h, self.recurrent_kernel, masks[1], self._recur)
        gates = [a + b for a, b in zip(x, y, strict=True)]
        if self.bias is not None:
            gates = [a + b for a, b in zip(gates, self._biases(), strict=True)]
        i, f, candidate, o = gates
        gate = self.recurrent_activation
        c = gate(f) * c + gate(i) * self.activation(candidate)
        h = gate(o) * self.activation(c)
        return h, [h, c]

    def _biases(self) -> Sequence[Tensor]:
        parts = split(self.bias, _GATES)
        if not self._first:
            return parts
        return [part[(slice(None), *(None,) * self.rank)] for part in parts]

    def _gates(self, x: Tensor, kernel: Any, masks: Any, slide: Any) -> Sequence[Tensor]:
        """The four gates' convolutions of an image: in one, or each with its own dropout."""
        if masks is None:
            return split(slide(x, kernel), _GATES, axis=1 if self._first else -1)
        kernels = split(kernel, _GATES, axis=-1)
        return [slide(x * m, k) for m, k in zip(masks, kernels, strict=True)]

    def _slide(self, x: Tensor, kernel: Any) -> Tensor:
        return self._convolution(x, kernel, self.strides, self.padding, self.dilation_rate)

    def _recur(self, x: Tensor, kernel: Any) -> Tensor:
        return self._convolution(x, kernel, (1,) * self.rank, "same", (1,) * self.rank)

    def _convolution(self, x: Tensor, kernel: Any, strides: Any, padding: str, gaps: Any) -> Tensor:
        def run(image: Tensor) -> Tensor:
            return convolution.convolution(image, kernel, strides, padding, dilations=gaps)

        return channels_last(run, x, self.rank, True) if self._first else run(x)


class _ConvLSTM(RNN):
    """`ConvLSTMCell` over time: (batch, time, ..., channels). Arguments as of it and of `RNN`."""

    rank: int

    def __init__(
        self,
        filters: int,
        kernel_size: Sizes,
        strides: Sizes = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Sizes = 1,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        unit_forget_bias: bool = True,
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        **kwargs: Any,
    ) -> None:
        cell = ConvLSTMCell(
            self.rank,
            filters,
            kernel_size,
            strides,
            padding,
            data_format,
            dilation_rate,
            activation,
            recurrent_activation,
            use_bias,
            kernel_initializer,
            recurrent_initializer,
            bias_initializer,
            unit_forget_bias,
            kernel_regularizer,
            recurrent_regularizer,
            bias_regularizer,
            kernel_constraint,
            recurrent_constraint,
            bias_constraint,
            dropout,
            recurrent_dropout,
            seed,
            name="conv_lstm_cell",
            dtype=kwargs.get("dtype"),
        )
        super().__init__(
            cell,
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            activity_regularizer=activity_regularizer,
            **kwargs,
        )

    def __getattr__(self, name: str) -> Any:
        # What the cell was made with: filters, strides and so on.
        if "cell" in self.__dict__ and name in registry.arguments(ConvLSTMCell):
            return getattr(self.cell, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _prepared(self, sequences: Tensor, training: bool) -> tuple[Tensor, Any, None]:
        if not sequences.dtype.is_floating:
            sequences = cast(sequences, self.compute_dtype)
        state = self.cell.get_initial_state(sequences.shape[0])[0]
        masks = self.cell.masks(sequences[:, 0], state, training)
        by_time = transpose(sequences, [1, 0, *range(2, len(sequences.shape))])
        return by_time, lambda x, states: self.cell.step(x, states, masks), None

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["cell"], config["unroll"], config["zero_output_for_mask"]
        return config


class ConvLSTM1D(_ConvLSTM):
    """Convolutional LSTM of series: (batch, time, rows, channels). Source: Shi et al., 2015."""

    rank = 1


class ConvLSTM2D(_ConvLSTM):
    """Convolutional LSTM of images: (batch, time, rows, columns, channels). Shi et al., 2015."""

    rank = 2


class ConvLSTM3D(_ConvLSTM):
    """Convolutional LSTM of volumes: (batch, time, three axes, channels). Shi et al., 2015."""

    rank = 3
