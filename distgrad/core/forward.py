"""ForwardAccumulator: Jacobian-vector products, from the rules that reverse mode already has.

A vjp is linear in its cotangent u; the derivative of that linear map with respect to u, applied to
the tangents, is the Jacobian-vector product (the double-vjp trick). It takes two walks over the
recorded operations, and no further rule for any primitive.
"""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

from distgrad.core import recording, tree
from distgrad.core.backward import array_of, zeros_like
from distgrad.core.dispatch import as_tensor, backend_of
from distgrad.core.dtypes import INEXACT
from distgrad.core.reading import variable_of
from distgrad.core.tape import GradientTape, UnconnectedGradients
from distgrad.core.tensor import Tensor
from distgrad.core.variable import Variable


class ForwardAccumulator:
    """Computes Jacobian-vector products in forward mode (``tf.autodiff.ForwardAccumulator``).

    ``primals`` is a tensor or variable, or a nest of them, and ``tangents`` the direction for each,
    of the same structure, shapes and dtypes. Operations inside the ``with`` block are followed;
    accumulators and tapes nest in any order, and those around a block follow its products
    wherever these are asked for. A ``custom_gradient`` counts as the derivative in
    forward mode too, where TensorFlow looks into the function. Raises ValueError where structures,
    shapes or dtypes differ or a primal is given twice.
    """

    def __init__(self, primals: Any, tangents: Any) -> None:
        self._primals = [variable_of(primal) for primal in tree.flatten(primals)]
        directions = tree.flatten_up_to(primals, tangents)
        if len({id(p) for p in self._primals}) != len(self._primals):
            raise ValueError("a primal is given twice; give it one tangent, the sum of both")
        self._tape = GradientTape(persistent=True, watch_accessed_variables=False)
        self._tape._forget()
        self._tape.watch(self._primals)
        self._tangents = [_tangent(p, t) for p, t in zip(self._primals, directions, strict=True)]
        self._entered = False
        self._around: list[GradientTape] = []  # who follows the products, also after their blocks

    def __enter__(self) -> ForwardAccumulator:
        around = [r for r in recording.stack() if isinstance(r, GradientTape)]
        self._tape.__enter__()
        self._entered, self._around = True, around
        return self

    def __exit__(self, *exc: object) -> None:
        self._tape.__exit__(*exc)

    def jvp(self, primals: Any, unconnected_gradients: Any = UnconnectedGradients.NONE) -> Any:
        """The derivative of ``primals`` (a tensor or a nest of them) along the tangents.

        The result has their structure; None (or zeros) where one does not depend on the
        accumulator's primals. Raises ValueError before the accumulator was entered.
        """
        unconnected = UnconnectedGradients(unconnected_gradients)
        if not self._entered:
            raise ValueError("jvp needs an accumulator that has been entered")

        def one(target: Any) -> Any:
            found = self._jvp(target)
            if found is None and unconnected is UnconnectedGradients.ZERO:
                return zeros_like(target)
            return found

        return tree.map_structure(one, primals)

    def _jvp(self, target: Any) -> Tensor | None:
        target = variable_of(target)
        if not isinstance(target, (Tensor, Variable)):
            raise TypeError(f"jvp takes tensors and variables, not {target!r}")
        if target.dtype.numpy_dtype.kind not in INEXACT:
            return None
        with contextlib.ExitStack() as stack:
            if self._tape._recording:
                stack.enter_context(self._tape.stop_recording())
            for tape in self._around:
                if not tape._recording and tape._entries is not None:
                    stack.enter_context(tape)
            seed = _probe(target)
            with GradientTape(watch_accessed_variables=False) as linear:
                linear.watch(seed)
                grads = self._tape.gradient(target, self._primals, output_gradients=seed)
                reached = [i for i, g in enumerate(grads) if g is not None]
                grads = [as_tensor(grads[i]) for i in reached]
            tangents = [self._tangents[i] for i in reached]
            return linear.gradient(grads, seed, output_gradients=tangents)


def _tangent(primal: Any, tangent: Any) -> Tensor:
    value = as_tensor(tangent, dtype=primal.dtype)
    if value.shape != primal.shape:
        raise ValueError(f"a tangent of shape {value.shape} for a primal of shape {primal.shape}")
    return value


def _probe(target: Any) -> Tensor:
    """A cotangent without zeros or relations between its elements.

    The result does not depend on it, but some rules treat a cotangent of 0 apart, and one of
    equal elements can add up to 0.
    """
    array = array_of(target)
    values = np.random.default_rng(0).uniform(0.5, 1.5, array.shape)
    return Tensor(backend_of(array).asarray(values, array.dtype))
