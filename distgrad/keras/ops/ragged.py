"""What functions of ``keras.ops`` do of ragged tensors: what TensorFlow's do of the same.

Loaded by the first function that is given one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distgrad.core.composite import of_composites, of_family
from distgrad.core.dispatch import as_tensor
from distgrad.keras.ops import reduction, shaping
from distgrad.keras.ops.promotion import floated
from distgrad.ops import reduce, shape
from distgrad.ragged.elementwise import elementwise

of_family("distgrad.keras.ops.elementwise")(elementwise)


def _reduction(
    of_tensorflow: Callable[..., Any], of_numbers: Callable[[Any], Any] = as_tensor
) -> Callable[..., Any]:
    """That of TensorFlow, of numbers in the dtype that Keras has for it."""

    def reduced(
        x: Any, axis: Any = None, keepdims: bool = False, *more: Any, **options: Any
    ) -> Any:
        for value in (*more, *options.values()):
            if value is not None:
                raise ValueError(f"the option {value!r} is not for ragged tensors: leave it out")
        return of_tensorflow(x.with_flat_values(of_numbers(x.flat_values)), axis, keepdims)

    return reduced


of_composites(reduction.sum)(_reduction(reduce.reduce_sum, reduction.summed))
of_composites(reduction.prod)(_reduction(reduce.reduce_prod, reduction.summed))
of_composites(reduction.mean)(_reduction(reduce.reduce_mean, floated))
for _name in ("max", "min", "any", "all"):
    of_composites(getattr(reduction, _name))(_reduction(getattr(reduce, f"reduce_{_name}")))


@of_composites(shaping.expand_dims)
def _(x: Any, axis: Any) -> Any:
    return shape.expand_dims(x, axis)


@of_composites(shaping.concatenate)
def _(xs: Any, axis: int = 0) -> Any:
    return shape.concat(xs, axis)
