"""Stepwise: optimizers that update one variable after the other, as Keras has it.

A class of a user's own makes its state in ``build`` with ``add_variable_from_reference``, and says
in ``update_step`` how a gradient changes a variable. Those here that are fast have a kernel instead
(`Optimizer.rule`), which runs over all variables at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from distgrad.core import recording
from distgrad.core.dtypes import as_dtype
from distgrad.core.tensor import Tensor
from distgrad.core.variable import Variable
from distgrad.keras import initializers
from distgrad.keras.optimizers.state import State


class Stepwise:
    """What an optimizer that defines ``update_step`` is written with."""

    name: str
    calls: Variable
    made: list[Variable]  # the state that ``add_variable`` has made, in that order
    slots: dict[str, list[Variable]]
    scalars: Any  # a property
    slots_apart = False  # whether Keras makes one slot of all variables after the other
    _positions: dict[int, int]
    _gradients: Sequence[Any] = ()
    _rate_now: float | None = None  # inside of a step

    @property
    def by_variable(self) -> bool:
        """Whether the class defines ``update_step``: then no kernel runs over all variables."""
        return type(self).update_step is not Stepwise.update_step

    def add_variable(
        self,
        shape: Any,
        initializer: Any = "zeros",
        dtype: Any = None,
        aggregation: str = "none",
        layout: Any = None,
        name: str | None = None,
    ) -> Variable:
        """A variable of the optimizer's state, saved with it; float32 by default."""
        return self._made(shape, initializer, dtype, name)

    def _made(
        self, shape: Any, initializer: Any, dtype: Any, name: str | None, of: Any = None
    ) -> Variable:
        wanted = as_dtype(dtype or "float32").numpy_dtype
        value = initializers.get(initializer)(tuple(shape), dtype=wanted)
        variable = State(value, name or "variable", self.name, of, dtype=wanted)
        self.made.append(variable)
        return variable

    def add_variable_from_reference(
        self, reference_variable: Variable, name: str | None = None, initializer: Any = "zeros"
    ) -> Variable:
        """A variable of the state, of the shape and dtype of another one."""
        shape, dtype = tuple(reference_variable.shape), reference_variable.dtype
        return self._made(shape, initializer, dtype, name or "var", reference_variable)

    def add_optimizer_variables(
        self,
        trainable_variables: Sequence[Variable],
        name: str | Sequence[str],
        initializer: Any = "zeros",
    ) -> Any:
        """A list with a variable of the state for each of these; several lists for several names.

        ``initializer`` is one for all, or one for each name.
        """
        names = [name] if isinstance(name, str) else list(name)
        several = isinstance(initializer, (list, tuple))
        starts = list(initializer) if several else [initializer] * len(names)
        lists: list[list[Variable]] = [[] for _ in names]
        for variable in trainable_variables:
            for found, each, start in zip(lists, names, starts, strict=True):
                found.append(self.add_variable_from_reference(variable, each, start))
        return lists[0] if isinstance(name, str) else tuple(lists)

    def assign(self, variable: Variable, value: Any) -> None:
        """Sets a variable."""
        variable.assign(value)

    def assign_add(self, variable: Variable, value: Any) -> None:
        """Adds to a variable."""
        variable.assign_add(value)

    def assign_sub(self, variable: Variable, value: Any) -> None:
        """Subtracts from a variable."""
        variable.assign_sub(value)

    def update_step(self, gradient: Any, variable: Variable, learning_rate: Any) -> None:
        """Updates one variable by its gradient; ``iterations`` counts the updates before this one.

        Raises NotImplementedError where neither a subclass nor a kernel says how.
        """
        self._run_kernel(gradient, variable, float(learning_rate))

    def _run_kernel(self, gradient: Any, variable: Variable, rate: float) -> None:
        raise NotImplementedError(f"{type(self).__name__} defines no update_step")

    def _get_variable_index(self, variable: Variable) -> int:  # Keras's examples call it
        return self._positions[id(variable)]

    def _each_step(self, step: int, rate: float, variables: Sequence[Variable]) -> None:
        """Calls ``update_step`` for each variable with a gradient, as Keras does: the update is
        counted once it is done."""
        calls = int(self.calls._buffer)
        self.calls._store(calls - 1)
        try:
            with recording.paused():
                for variable, gradient in zip(variables, self._gradients, strict=True):
                    if gradient is not None:
                        dtype = variable._buffer.dtype
                        gradient = gradient.astype(dtype, copy=False)
                        learning_rate = Tensor(np.asarray(rate, dtype))
                        self.update_step(Tensor(gradient), variable, learning_rate)
        finally:
            self.calls._store(calls)
            self._gradients = ()

    # The state as a whole

    @property
    def variables(self) -> list[Variable]:
        """The state in the order of Keras: the count of updates, the learning rate, the slots.

        Of two slots those of one variable follow each other.
        """
        found = [v for v in self.scalars.values() if not any(v is each for each in self.made)]
        slots = dict(self.slots)
        found += slots.pop("average", [])
        found += slots.pop("gradient_accumulator", [])
        alone = self.slots_apart or len(slots) < 2
        pair = [] if alone else [slots.pop(name) for name in list(slots)[:2]]
        found += [variable for both in zip(*pair, strict=True) for variable in both]
        return found + [variable for slot in slots.values() for variable in slot] + self.made

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Assigns all of ``variables``. Raises ValueError where their number differs."""
        if len(weights) != len(self.variables):
            raise ValueError(
                f"the optimizer has {len(self.variables)} variables, {len(weights)} were given: "
                "build it first, for the same variables"
            )
        for variable, value in zip(self.variables, weights, strict=True):
            variable.assign(value)

    def save_own_variables(self, store: Any) -> None:
        """Writes the state into a mapping, under "0", "1", ..."""
        for number, variable in enumerate(self.variables):
            store[str(number)] = np.asarray(variable.numpy())

    def load_own_variables(self, store: Mapping[str, Any]) -> None:
        """Reads what ``save_own_variables`` wrote. Raises ValueError where it does not fit."""
        self.set_weights([store[str(number)] for number in range(len(store))])

    def stateless_apply(
        self, optimizer_variables: Sequence[Any], grads: Sequence[Any], trainable_variables: Any
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The values of variables, and of the state, after an update that leaves both alone.

        Raises ValueError before ``build``, and where the numbers of values differ.
        """
        known: list[Variable] = self.trained  # type: ignore[attr-defined]
        if not known:
            raise ValueError("stateless_apply needs a built optimizer: call build(variables) first")
        own = [*known, *self.variables]
        given = [*trainable_variables, *optimizer_variables]
        if len(given) != len(own):
            raise ValueError(f"{len(given)} values for {len(own)} variables")
        kept = [np.array(variable.numpy()) for variable in own]
        try:
            for variable, value in zip(own, given, strict=True):
                variable.assign(value)
            self.apply(grads, known)  # type: ignore[attr-defined]
            found = [Tensor(np.array(variable.numpy())) for variable in own]
        finally:
            for variable, value in zip(own, kept, strict=True):
                variable.assign(value)
        return found[: len(known)], found[len(known) :]


def check_trained(optimizer: Any, variables: Sequence[Variable]) -> None:
    """Raises ValueError where a built optimizer does not know one of these variables.

    It may know more, where some were frozen since.
    """
    if not {id(v) for v in variables} <= {id(v) for v in optimizer.trained}:
        raise ValueError(
            "this optimizer already belongs to other variables; make a new one for these"
        )


def built_once(build: Callable[..., None]) -> Callable[..., None]:
    """A subclass's ``build``, which makes its state at the first call alone."""

    def once(self: Any, variables: Sequence[Variable]) -> None:
        if self.built:
            check_trained(self, variables)
        else:
            build(self, variables)

    once.__doc__ = build.__doc__
    return once
