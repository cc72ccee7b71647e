"""Moving averages of variables (``tf.train.ExponentialMovingAverage``)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from distgrad.core.variable import Variable
from distgrad.ops.casting import cast
from distgrad.ops.clipping import minimum


class ExponentialMovingAverage:
    """Keeps ``average = decay * average + (1 - decay) * variable`` for each variable.

    An average begins with the value of its variable at the first ``apply``. ``num_updates``, a
    number or a variable, lowers the decay of the first steps to ``(1 + n) / (10 + n)``. The
    averages are variables, and are saved where a ``Checkpoint`` is given this object.
    """

    def __init__(
        self,
        decay: Any,
        num_updates: Any = None,
        zero_debias: bool = False,
        name: str = "ExponentialMovingAverage",
    ) -> None:
        if zero_debias:
            raise ValueError("zero_debias is for averages of tensors; those here are of variables")
        self._decay, self._num_updates, self._name = decay, num_updates, name
        self._averages: dict[int, tuple[Variable, Variable]] = {}  # by the id of the variable

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._averages = {id(v): (v, average) for v, average in self._averages.values()}

    @property
    def name(self) -> str:
        return self._name

    def _factor(self) -> Any:
        if self._num_updates is None:
            return 1.0 - self._decay
        count = cast(self._num_updates, "float32")
        return 1.0 - minimum((1.0 + count) / (10.0 + count), float(self._decay))

    def apply(self, var_list: Iterable[Variable] | None = None) -> None:
        """Brings the averages of these variables up to date; the first time it makes them.

        Raises TypeError for what is not a variable of floats.
        """
        if var_list is None:
            raise ValueError("apply needs the variables to average: there are no collections here")
        for variable in var_list:
            if not isinstance(variable, Variable) or not variable.dtype.is_floating:
                raise TypeError(f"an average is one of a variable of floats, not of {variable!r}")
            if id(variable) not in self._averages:
                made = Variable(variable.value(), trainable=False, name=self.average_name(variable))
                self._averages[id(variable)] = variable, made
                for callback in self.__dict__.get("_when_built", ()):  # who has a value for it
                    callback()
            average = self._averages[id(variable)][1]
            factor = self._factor()
            if not isinstance(factor, float):
                factor = cast(factor, variable.dtype)
            average.assign_sub((average - variable) * factor)

    def checkpointed(self) -> Iterator[tuple[str, Variable]]:
        """What a checkpoint saves: the averages by the order of their variables."""
        for i, (_, average) in enumerate(self._averages.values()):
            yield str(i), average

    def average(self, var: Variable) -> Variable | None:
        """The average of a variable; None before ``apply`` has seen it."""
        found = self._averages.get(id(var))
        return None if found is None else found[1]

    def average_name(self, var: Variable) -> str:
        """The name of the variable that holds the average of ``var``."""
        return f"{var.name.partition(':')[0]}/{self._name}"

    def variables_to_restore(self, moving_avg_variables: Any = None) -> dict[str, Variable]:
        """Variables by the names under which their averages, or they themselves, are kept."""
        known = {self.average_name(v): v for v, _ in self._averages.values()}
        for variable in moving_avg_variables or ():
            if id(variable) not in self._averages:
                known.setdefault(variable.name.partition(":")[0], variable)
        return known
