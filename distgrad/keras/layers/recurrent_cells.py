"""Cells: one step of a recurrent layer.

A cell's work is cut in two: ``project`` takes the inputs of any number of steps to the gates at
once, ``recurrence`` gives the function that makes a step's new states of them. A recurrent layer
projects the whole sequence before its loop over time, and reads the weights once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from distgrad.core import recording, tree
from distgrad.core.dispatch import as_tensor
from distgrad.core.tensor import Tensor
from distgrad.keras import activations
from distgrad.keras.layers.base import Layer
from distgrad.keras.layers.core import (
    fraction,
    known_size,
    own_weight,
    set_options,
    whole_number,
)
from distgrad.ops import nn
from distgrad.ops.constants import ones, zeros
from distgrad.ops.linalg import matmul
from distgrad.ops.lstm import lstm_cell, lstm_steps
from distgrad.ops.shape import concat, reshape, split, unstack

States = list[Tensor]
Step = Callable[[Tensor, States], States]
Whole = Callable[[Tensor, States], tuple[Tensor, States]]
# What a sample's inputs, or states, are multiplied with: one mask for all gates, or one per gate.
Masks = list[Tensor] | None


class RecurrentCell(Layer):
    """What the cells share. Subclasses have a number of ``gates`` and define ``recurrence``.

    Raises ValueError for units that are not a positive int, a rate of dropout outside [0, 1).
    """

    gates = 1
    activation: Any
    bias_initializer: Any
    bias_regularizer: Any
    bias_constraint: Any

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
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
        self.units = whole_number("units", units)
        self.dropout = fraction("dropout", dropout, below_one=True)
        self.recurrent_dropout = fraction("recurrent_dropout", recurrent_dropout, below_one=True)
        self.use_bias = use_bias
        set_options(
            self,
            activation=activation,
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
        self.seed = seed
        self.bias: Any = None

    @property
    def state_size(self) -> int | list[int]:
        return self.units

    @property
    def output_size(self) -> int:
        return self.units

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        features = known_size(self, input_shape, -1)
        columns = self.gates * self.units
        self.kernel = own_weight(self, "kernel", (features, columns))
        self.recurrent_kernel = own_weight(
            self, "recurrent_kernel", (self.units, columns), "recurrent"
        )
        if self.use_bias:
            self.bias = self.add_weight(
                self._bias_shape(),
                self._initial_bias,
                name="bias",
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )

    def _bias_shape(self) -> tuple[int, ...]:
        return (self.gates * self.units,)

    def _initial_bias(self, shape: tuple[int, ...], dtype: Any) -> Tensor:
        return self.bias_initializer(shape, dtype=dtype)

    def _input_bias(self) -> Any:
        return self.bias

    def get_initial_state(self, batch_size: int) -> States:
        """Zeros for each of the states, of shape (batch_size, units)."""
        size = self.state_size
        sizes = [size] if isinstance(size, int) else size
        return [zeros((batch_size, n), self.compute_dtype) for n in sizes]

    def masks(self, batch_size: int, training: bool) -> tuple[Masks, Masks]:
        """Dropout for the inputs and for the states: drawn once, the same at every step."""
        if not training:
            return None, None
        count = self.gates if self.recurrent_dropout else 1
        features = self.kernel.shape[0]
        return (
            self._mask((count, batch_size, features), self.dropout),
            self._mask((count, batch_size, self.units), self.recurrent_dropout),
        )

    def _mask(self, shape: tuple[int, ...], rate: float) -> Masks:
        if not rate:
            return None
        return unstack(nn.dropout(ones(shape, self.compute_dtype), rate, seed=self.seed))

    def project(self, inputs: Tensor, masks: Masks = None) -> Tensor:
        """``inputs @ kernel + bias`` for inputs of shape (batch, ...) or (time, batch, ...)."""
        rows = gated_product(inputs, self.kernel, masks)
        bias = self._input_bias()
        return rows if bias is None else rows + bias

    def recurrence(self, masks: Masks = None) -> Step:
        """From projected inputs and states to the new states, of which the first is the output."""
        raise NotImplementedError

    def at_once(self) -> Whole | None:
        """From projected inputs ``[time, batch, ...]`` and states to all outputs, and the last
        states; None where the steps are to be taken one by one.
        """
        return None

    @property
    def calls_itself(self) -> bool:
        """Whether a class of a user's own defines ``call``: a step is then what that says."""
        return type(self).call is not RecurrentCell.call

    def call(
        self, inputs: Tensor, states: Any, training: bool = False
    ) -> tuple[Tensor, list[Tensor] | Tensor]:
        several = isinstance(states, (list, tuple))
        old = list(states) if several else [states]
        input_masks, state_masks = self.masks(inputs.shape[0], training)
        new = self.recurrence(state_masks)(self.project(inputs, input_masks), old)
        return new[0], new if several else new[0]


def gated_product(x: Tensor, kernel: Any, masks: Masks) -> Tensor:
    """``x @ kernel`` over the last axis of ``x``, each gate's columns with its own mask."""
    if masks is None:
        return _product(x, kernel)
    if len(masks) == 1:
        return _product(x * masks[0], kernel)
    parts = split(kernel, len(masks), axis=1)
    return concat([_product(x * m, part) for m, part in zip(masks, parts, strict=True)], -1)


def _product(x: Tensor, kernel: Any) -> Tensor:
    shape = x.shape
    if len(shape) == 2:
        return matmul(x, kernel)
    rows = matmul(reshape(x, (-1, shape[-1])), kernel)  # of all steps at once
    return reshape(rows, (*shape[:-1], kernel.shape[-1]))


class SimpleRNNCell(RecurrentCell):
    """``activation(x @ kernel + h @ recurrent_kernel + bias)``.

    One state of shape (batch, units). Raises ValueError for units that are not a positive int, a
    rate of dropout outside [0, 1).
    """

    def recurrence(self, masks: Masks = None) -> Step:
        kernel = as_tensor(self.recurrent_kernel)

        def step(x: Tensor, states: States) -> States:
            return [self.activation(x + gated_product(states[0], kernel, masks))]

        return step


def remembering_bias(initializer: Any, units: int, dtype: Any) -> Tensor:
    """The bias of the four gates of an LSTM: 1 for that which forgets, as by ``initializer`` else.

    Source: Jozefowicz et al., 2015.
    """
    first = initializer((units,), dtype=dtype)
    last = initializer((2 * units,), dtype=dtype)
    return concat([first, ones((units,), dtype), last], 0)


class LSTMCell(RecurrentCell):
    """Long short-term memory, with gates in the order input, forget, candidate, output.

    States: the output and the carry, of shape (batch, units). ``unit_forget_bias`` starts the
    forget gate's bias at 1; ``implementation`` changes nothing. Raises ValueError for units that
    are not a positive int, a rate of dropout outside [0, 1). Hochreiter and Schmidhuber, 1997.
    """

    gates = 4
    _not_in_config = (*RecurrentCell._not_in_config, "implementation")  # as in Keras

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
        *,
        unit_forget_bias: bool = True,
        implementation: int = 2,
        **kwargs: Any,
    ) -> None:
        super().__init__(units, activation, use_bias, **kwargs)
        self.recurrent_activation = activations.get(recurrent_activation)
        self.unit_forget_bias = unit_forget_bias

    @property
    def state_size(self) -> list[int]:
        return [self.units, self.units]

    def _initial_bias(self, shape: tuple[int, ...], dtype: Any) -> Tensor:
        if not self.unit_forget_bias:
            return super()._initial_bias(shape, dtype)
        return remembering_bias(self.bias_initializer, self.units, dtype)

    def _in_one(self, kernel: Tensor) -> bool:
        """Whether there is an operation for all that a step does, and it is to be used."""
        gate, activation = self.recurrent_activation, self.activation
        usual = gate is activations.sigmoid and activation is activations.tanh
        return usual and kernel._data.dtype.kind == "f" and not recording.in_parts()

    def at_once(self) -> Whole | None:
        kernel = as_tensor(self.recurrent_kernel)
        if not self._in_one(kernel):
            return None

        def run(x: Tensor, states: States) -> tuple[Tensor, States]:
            outputs, carries, _ = lstm_steps(x, kernel, *states)
            return outputs, [outputs[-1], carries[-1]]

        return run

    def recurrence(self, masks: Masks = None) -> Step:
        kernel, gate = as_tensor(self.recurrent_kernel), self.recurrent_activation
        in_one = self._in_one(kernel)

        def step(x: Tensor, states: States) -> States:
            h, c = states
            if in_one:
                return list(lstm_cell(x + gated_product(h, kernel, masks), c))
            i, f, candidate, o = split(x + gated_product(h, kernel, masks), 4, axis=1)
            c = gate(f) * c + gate(i) * self.activation(candidate)
            return [gate(o) * self.activation(c), c]

        return step


class GRUCell(RecurrentCell):
    """Gated recurrent unit, with gates in the order update, reset, candidate.

    One state of shape (batch, units). The reset gate acts after the product with the recurrent
    kernel, with a bias of its own there, or before it (``reset_after=False``); ``implementation``
    changes nothing. Raises ValueError for units that are not a positive int, a rate of dropout
    outside [0, 1). Cho et al., 2014.
    """

    gates = 3
    _not_in_config = (*RecurrentCell._not_in_config, "implementation")  # as in Keras

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
        *,
        reset_after: bool = True,
        implementation: int = 2,
        **kwargs: Any,
    ) -> None:
        super().__init__(units, activation, use_bias, **kwargs)
        self.recurrent_activation = activations.get(recurrent_activation)
        self.reset_after = reset_after

    def _bias_shape(self) -> tuple[int, ...]:
        columns = self.gates * self.units
        return (2, columns) if self.reset_after else (columns,)

    def _input_bias(self) -> Any:
        return self.bias[0] if self.use_bias and self.reset_after else self.bias

    def recurrence(self, masks: Masks = None) -> Step:
        return self._reset_after(masks) if self.reset_after else self._reset_before(masks)

    def _reset_after(self, masks: Masks) -> Step:
        kernel, gate = as_tensor(self.recurrent_kernel), self.recurrent_activation
        bias = self.bias[1] if self.use_bias else None

        def step(x: Tensor, states: States) -> States:
            (h,) = states
            inner = gated_product(h, kernel, masks)
            x_z, x_r, x_h = split(x, 3, axis=1)
            h_z, h_r, h_h = split(inner if bias is None else inner + bias, 3, axis=1)
            z = gate(x_z + h_z)
            return [z * h + (1 - z) * self.activation(x_h + gate(x_r + h_r) * h_h)]

        return step

    def _reset_before(self, masks: Masks) -> Step:
        gate, units = self.recurrent_activation, self.units
        gates, last = split(self.recurrent_kernel, [2 * units, units], axis=1)
        of_gates, of_last = (None, None) if masks is None else (masks[:2], masks[2:])

        def step(x: Tensor, states: States) -> States:
            (h,) = states
            x_z, x_r, x_h = split(x, 3, axis=1)
            h_z, h_r = split(gated_product(h, gates, of_gates), 2, axis=1)
            z, reset = gate(x_z + h_z), gate(x_r + h_r) * h
            return [z * h + (1 - z) * self.activation(x_h + gated_product(reset, last, of_last))]

        return step


def state_sizes(cell: Any) -> Sequence[int]:
    """The sizes of a cell's states. Raises ValueError for an object that is no cell."""
    size = getattr(cell, "state_size", None)
    if not hasattr(cell, "call") or size is None:
        raise ValueError(f"a cell has call(inputs, states) and a state_size; got {cell!r}")
    if isinstance(size, int):
        return [size]
    sizes = tree.flatten(size)
    if isinstance(size, (list, tuple)) and all(isinstance(n, int) for n in sizes):
        return sizes
    raise ValueError(f"a cell's state_size is an int or a list of ints, not {size!r}")
