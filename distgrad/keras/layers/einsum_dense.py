"""EinsumDense: a dense layer whose product is any sum over axes that einsum can write."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

from distgrad.core.tensor import Tensor
from distgrad.keras import activations
from distgrad.keras.initializers import over_axes
from distgrad.keras.layers.adapting import Adapted, Table
from distgrad.keras.layers.core import own_weight, set_options
from distgrad.keras.layers.input_spec import InputSpec
from distgrad.ops.einsum import einsum

_EQUATION = re.compile(
    r"(?P<left>\.\.\.)?(?P<input>[a-zA-Z]+)(?P<right>\.\.\.)?,(?P<kernel>[a-zA-Z]+)"
    r"->(?P<before>\.\.\.)?(?P<output>[a-zA-Z]+)(?P<after>\.\.\.)?"
)


class _Shapes(NamedTuple):
    kernel: tuple[int, ...]
    bias: tuple[int, ...] | None
    summed: list[int]  # axes of the kernel that the input has and the output lacks
    made: list[int]  # axes of the kernel that the output has


class EinsumDense(Adapted):
    """``activation(einsum(equation, x, kernel) + bias)``.

    ``equation`` is such as "ab,bc->ac", with an ellipsis on the left or the right of input and
    output for any further axes. ``output_shape`` has the sizes of the output without the batch and
    without what an ellipsis stands for, None where they are those of the input; ``bias_axes`` are
    the letters of the output that the bias has. Raises ValueError for another equation, and sizes
    that do not go together.
    """

    one_tensor = True
    kernel_initializer: Any
    activation: Callable[..., Any]
    adapted = "kernel"
    kernel = Table()
    _fixed: ClassVar = {"quantization_config": None}

    def __init__(
        self,
        equation: str,
        output_shape: int | Sequence[int | None],
        activation: Any = None,
        bias_axes: str | None = None,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.equation = equation
        self.output_shape = (
            (output_shape,) if isinstance(output_shape, int) else tuple(output_shape)
        )
        self.bias_axes = bias_axes
        set_options(
            self,
            activation=activation,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        shapes = _shapes(self.equation, self.bias_axes, tuple(input_shape), self.output_shape)
        self.input_spec = InputSpec(ndim=len(input_shape))
        given = self.kernel_initializer
        self.kernel_initializer = over_axes(given, shapes.summed, shapes.made)
        self.kernel = own_weight(self, "kernel", shapes.kernel)
        self.kernel_initializer = given
        self.bias = None if shapes.bias is None else own_weight(self, "bias", shapes.bias)
        self._adapt()

    def call(self, x: Tensor) -> Tensor:
        y = einsum(self.equation, x, self.kernel)
        return activations.biased(y if self.bias is None else y + self.bias, None, self.activation)


def _shapes(
    equation: str, bias_axes: str | None, shape: tuple[int | None, ...], output: tuple
) -> _Shapes:
    """The shapes of the weights. Raises ValueError where equation and sizes do not fit."""
    found = _EQUATION.fullmatch(equation.replace(" ", ""))
    elided = found is not None and (found["left"], found["right"]) == (
        found["before"],
        found["after"],
    )
    if found is None or not elided or (found["left"] and found["right"]):
        raise ValueError(
            f"Invalid einsum equation '{equation}'. Equations must be in the form [X],[Y]->[Z], "
            "...[X],[Y]->...[Z], or [X]...,[Y]->[Z]...."
        )
    letters, made = found["input"], found["output"]
    more = len(shape) - len(letters)
    if more < 0 or (more and not (found["left"] or found["right"])):
        raise ValueError(f"{equation!r} does not fit an input of shape {shape}")
    lead = more if found["left"] else 0
    sizes: dict[str, int | None] = dict(zip(letters, shape[lead:], strict=False))
    # The batch is the first axis: of the letters, or of what the ellipsis stands for.
    whole = output if lead else (shape[0], *output)
    if len(whole) != len(made):
        raise ValueError(f"output_shape {output} does not fit the output of {equation!r}")
    for letter, size in zip(made, whole, strict=True):
        if letter not in sizes:
            sizes[letter] = size
        elif None not in (size, sizes[letter]) and size != sizes[letter]:
            raise ValueError(
                f"Input shape and output shape do not match at shared dimension '{letter}'. Input "
                f"shape is {sizes[letter]}, and output shape is {size}."
            )
    unknown = [letter for letter in found["kernel"] if sizes.get(letter) is None]
    missing = [letter for letter in made if letter not in letters + found["kernel"]]
    if unknown or missing:
        raise ValueError(
            f"{equation!r}: the sizes of {', '.join(unknown + missing)} follow neither from an "
            f"input of shape {shape} nor from output_shape {output}"
        )
    kernel = tuple(int(sizes[letter]) for letter in found["kernel"])  # type: ignore[arg-type]
    bias = None
    if bias_axes is not None:
        if not bias_axes or not set(bias_axes) <= set(made):
            raise ValueError(
                f"Bias dimension '{bias_axes}' was requested, but is not part of the output spec "
                f"'{made}'"
            )
        first = min(map(made.find, bias_axes))
        own = [sizes[letter] if letter in bias_axes else 1 for letter in made[first:]]
        bias = (*own, *(1,) * (more - lead))
    return _Shapes(
        kernel,
        bias,  # type: ignore[arg-type]
        [i for i, letter in enumerate(found["kernel"]) if letter not in made],
        [i for i, letter in enumerate(found["kernel"]) if letter in made],
    )
