"""What all optimizers share: learning rate, state, clipping, weight decay, averages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from distgrad.core import devices, dispatch, recording, timeline
from distgrad.core.dispatch import as_tensor
from distgrad.core.tensor import Tensor
from distgrad.core.user_line import warn
from distgrad.core.variable import Variable
from distgrad.keras.optimizers import schedules
from distgrad.keras.optimizers.averaging import Averaging
from distgrad.keras.optimizers.bound import Planned, Views
from distgrad.keras.optimizers.checks import (
    check_gradients,
    check_not_accumulated,
    check_settings,
)
from distgrad.keras.optimizers.clipping import clip
from distgrad.keras.optimizers.decaying import Decaying
from distgrad.keras.optimizers.rates import Rate, Rated
from distgrad.keras.optimizers.state import State
from distgrad.keras.optimizers.stepwise import Stepwise, built_once, check_trained
from distgrad.keras.registry import Configured, serialize, snake_case
from distgrad.ops import optim
from distgrad.training import applied, objects, turns
from distgrad.training.arena import Arena

_LARGE = 1 << 22  # bytes: from there on an array gets large pages, which an update runs faster on

Piece = tuple[Any, Any, list[Any]]  # a value, its gradient, and its slots
# A kernel of values, slots, gradients and numbers, the numbers, which are rounded to the values'
# dtype, and the kernel's constants.
Rule = tuple[Any, tuple[float, ...], dict[str, Any]]


class Optimizer(Stepwise, Rated, Decaying, Averaging, Configured):
    """Base of all optimizers: names its state, and updates arrays in place.

    ``learning_rate`` is a number, a LearningRateSchedule, or a function of the step, from 0 (or of
    nothing). Of ``clipnorm`` (of each gradient), ``global_clipnorm`` (of all together) and
    ``clipvalue`` (of each element) at most one may be set. ``weight_decay`` takes that part of a
    variable away before its update, times the learning rate. ``use_ema`` keeps a moving average of
    the variables; it takes their place every ``ema_overwrite_frequency`` steps, and at the end of
    ``fit``. The loss is multiplied by ``loss_scale_factor``, and gradients are divided by it, which
    keeps those of half precision from vanishing. With ``gradient_accumulation_steps`` an update
    comes at every so many calls, by the mean of their gradients. Rows of an embedding's gradient
    that come again in a batch add up first, as in a dense gradient; Keras 3 squares each by itself
    where an optimizer squares gradients. Raises ValueError for settings out
    of range and for unknown keywords.

    ``slots`` maps each kind of state to one variable per trained variable; ``iterations`` counts
    the updates, ``calls`` how often gradients came. A kind of optimizer defines ``slot_names``,
    ``slot_start`` where a slot does not start from 0, and ``rule``; or, as in Keras,
    ``update_step(gradient, variable, learning_rate)``, and the state that it needs in ``build``.
    """

    slot_names: tuple[str, ...] = ()
    slot_start: Mapping[str, float] = {}

    def __init__(
        self,
        learning_rate: Rate = 0.001,
        *,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = None,
        **unknown: Any,
    ) -> None:
        if unknown.pop("decay", None):
            warn(
                "decay is ignored, as Keras 3 does: make learning_rate a schedule, for example "
                "InverseTimeDecay"
            )
        if unknown:
            raise ValueError(f"{type(self).__name__} has no argument {', '.join(unknown)}")
        clips = {
            "clipnorm": clipnorm,
            "clipvalue": clipvalue,
            "global_clipnorm": global_clipnorm,
        }
        every = gradient_accumulation_steps
        check_settings(clips, weight_decay, ema_momentum, ema_overwrite_frequency, every)
        self.name = name or snake_case(type(self).__name__)
        self.gradient_accumulation_steps = every
        self.loss_scale_factor = loss_scale_factor
        self.weight_decay = weight_decay
        self.clipnorm = clipnorm
        self.clipvalue = clipvalue
        self.global_clipnorm = global_clipnorm
        self.use_ema = use_ema
        self.ema_momentum = ema_momentum
        self.ema_overwrite_frequency = ema_overwrite_frequency
        with devices.host():  # Python asks for it at every step
            self.calls: Variable = State(0, "iteration", self.name, dtype="int64")
        self.slots: dict[str, list[Variable]] = {}
        self.made: list[Variable] = []
        self._learning_rate = None
        self.learning_rate = learning_rate
        self._views: dict[int, Views] = {}
        self._positions: dict[int, int] = {}
        self._known: list[Variable] = []

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_views": {}, "_positions": {}}  # of this process's memory

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._positions = _positions(self._known)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "build" in cls.__dict__:
            cls.build = built_once(cls.build)  # type: ignore[method-assign]

    @property
    def iterations(self) -> Any:
        """How many updates there were: a variable, or a tensor where gradients are accumulated."""
        every = self.gradient_accumulation_steps
        if not every:
            return self.calls
        return recording.slot(lambda: Tensor(np.asarray(int(self.calls._buffer) // every)))

    # The state

    def build(self, variables: Sequence[Variable]) -> None:
        """Makes the state for these variables; the first call decides which they are."""
        if self._known:
            check_trained(self, variables)
            self.follow_settings()
            return
        known = list(variables)
        self._constrained: list[Any] = [v for v in known if getattr(v, "constraint", None)]
        self._positions = _positions(known)
        self.follow_settings()
        names = [*self.slot_names, *["average"] * self.use_ema]
        if self.gradient_accumulation_steps:
            names.append("gradient_accumulator")
        self.slots = {
            name: [
                State(
                    np.full(v.shape, self.slot_start.get(name, 0), v.dtype.numpy_dtype),
                    name,
                    self.name,
                    of=v,
                )
                for v in known
            ]
            for name in names
        }
        by_dtype: dict[Any, list[Variable]] = {}
        for slot in self.slots.values():
            for variable in slot:
                by_dtype.setdefault(variable._buffer.dtype, []).append(variable)
        for together in by_dtype.values():
            if sum(v._buffer.nbytes for v in together) >= _LARGE:
                Arena(together)
        self._known = known  # the last: where Ctrl-C comes before, the next call makes all of it
        objects.built(self)

    def wanted_slots(self) -> tuple[str, ...]:
        """The slots that updates take by what is set now."""
        return self.slot_names

    def follow_settings(self) -> None:
        """Gives updates the slots that they want by now.

        Raises ValueError for one that was not made, since at the start it was not wanted.
        """
        names = self.wanted_slots()
        if names == self.slot_names:
            return
        missing = [name for name in names if self._known and name not in self.slots]
        if missing:
            raise ValueError(
                f"{self.name} has no state {missing[0]!r}, which its settings need now: give them "
                "to its constructor, or set them before the first step"
            )
        self.slot_names = names
        self._views.clear()

    @property
    def built(self) -> bool:
        return bool(self._known)

    @property
    def trained(self) -> list[Variable]:
        """The variables that it updates."""
        return list(self._known)

    # A loss is multiplied before its gradient is taken, where half precision asks for it.

    @property
    def loss_scale(self) -> float:
        return self.loss_scale_factor or 1.0

    def scale_loss(self, loss: Any) -> Any:
        """The loss whose gradient is to be applied."""
        return loss * self.loss_scale_factor if self.loss_scale_factor else loss

    @property
    def needs_whole_gradients(self) -> bool:
        """Whether ``before_update`` reads all of a gradient; else each part of it stands alone."""
        accumulates = bool(self.gradient_accumulation_steps)
        return bool(self.clipnorm or self.global_clipnorm or accumulates or self.by_variable)

    @property
    def only_updates(self) -> bool:
        """Whether a step is its rule alone: no clipping, decay, averages or constraints."""
        more = self.needs_whole_gradients or self.clipvalue or self.weight_decay or self.use_ema
        return not (more or self._constrained)

    def unscaled(self, finite: bool) -> bool:
        """Told whether gradients of a scaled loss are finite; whether to apply them."""
        return True

    @property
    def scalars(self) -> dict[str, Variable]:
        """State that belongs to no variable, by name: the learning rate can be set while running.

        All else follows from ``calls``, which are kept as "iterations".
        """
        rate = self._learning_rate
        known = {"iterations": self.calls}
        if isinstance(rate, Variable):
            known["learning_rate"] = rate
        for variable in self.made:
            name, count = variable._name, 0
            while name in known:
                count += 1
                name = f"{variable._name}_{count}"
            known[name] = variable
        return known

    # One step. The training loop does the same on arenas, by the same methods.

    def begin(self, gradients: Sequence[Any]) -> tuple[int, bool]:
        """Counts a call: the number of the update that it belongs to, and whether that is due.

        Where gradients are accumulated, they are then the mean over its calls, in place.
        """
        calls = int(self.calls._buffer) + 1
        self.calls._store(calls)
        every = self.gradient_accumulation_steps
        if not every:
            return calls, True
        due = calls % every == 0
        for variable, gradient in zip(self.slots["gradient_accumulator"], gradients, strict=True):
            variable._recall_loans()
            total = variable._buffer
            if gradient is not None and due:
                gradient += total
                gradient /= gradient.dtype.type(every)
            elif gradient is not None:
                total += gradient
            if due:
                total[...] = 0
        return -(-calls // every), due

    def take_back(self) -> None:
        """Forgets the last call: its update was not made."""
        self.calls._store(int(self.calls._buffer) - 1)

    def before_update(self, gradients: Sequence[Any], step: int, *again: Sequence[Any]) -> None:
        """Clips the gradients in place, and lets the weights decay that have one.

        ``gradients`` are arrays (or None) for the variables given to ``build``, in that order;
        ``again`` further ones, of variables that are there several times.
        """
        bounds = self.clipvalue, self.clipnorm, self.global_clipnorm
        if any(bounds):
            clip([g for each in (gradients, *again) for g in each if g is not None], *bounds)
        if self.by_variable:
            self._gradients = gradients
        for each in (gradients, *again) if self.weight_decay else ():
            rate = self.rate(step)
            for variable, gradient in zip(self._known, each, strict=True):
                decay = self.decay_of(variable)
                if gradient is not None and decay and self._decays(variable):
                    variable._recall_loans()
                    value = variable._buffer
                    optim.decay_update.into((value,), value, value.dtype.type(decay * rate))

    def rule(self, step: int) -> Rule:
        """How arrays are updated by update number ``step``."""
        raise NotImplementedError(
            f"{type(self).__name__} says neither in update_step nor in rule how it updates"
        )

    def update(self, pieces: Iterable[Piece], step: int) -> None:
        """Updates values and their slots in place: each piece is of flat arrays of one size."""
        if self.by_variable:
            self._each_step(step, self.rate(step), self._known)
            return
        kernel, numbers, constants = self.rule(step)
        calls: list[tuple[tuple, tuple]] = []
        dtype, given = None, numbers
        for value, gradient, slots in pieces:
            if value.dtype is not dtype:
                if calls:  # those of another dtype have other numbers
                    kernel.into_each(calls, constants)
                    calls = []
                dtype = value.dtype
                given = tuple([dtype.type(number) for number in numbers])
            out = (value, *slots)
            calls.append((out, (*out, gradient, *given)))
        if calls:
            kernel.into_each(calls, constants)

    def planned(self, pieces: Sequence[Piece]) -> Planned:
        """``update`` of arrays that stay where they are, as a function of the step."""
        return Planned(self, pieces)

    def _run_kernel(self, gradient: Any, variable: Variable, rate: float) -> None:
        gradients: list[Any] = [None] * len(self._known)
        gradients[self._positions[id(variable)]] = as_tensor(gradient)._data
        step = int(self.calls._buffer) // (self.gradient_accumulation_steps or 1) + 1
        self._rate_now = rate
        try:
            kernel, numbers, constants = self.rule(step)
        finally:
            self._rate_now = None
        for value, given, slots in self._pieces(gradients):
            out = (value, *slots)
            kernel.into(out, *out, given, *map(value.dtype.type, numbers), **constants)

    def after_update(self, step: int) -> None:
        """Brings the moving averages up to date, and weights back within their constraints."""
        if self.use_ema:
            self._average(step)
        for variable in self._constrained:
            variable.assign(variable.constraint(variable))

    def apply_gradients(self, grads_and_vars: Iterable[tuple[Any, Variable]]) -> Variable:
        """Updates each variable by its gradient; None gradients are skipped with a warning.

        A variable that comes several times is updated so often, by one gradient after the other.
        Raises ValueError for no gradients at all or a variable unknown since the first call,
        InvalidArgumentError for a gradient of another shape. Returns ``iterations``.
        """
        pairs = list(grads_and_vars)
        if type(self).apply is Optimizer.apply:
            self.apply_pairs(pairs)
        else:
            self.apply([g for g, _ in pairs], [v for _, v in pairs])
        return self.iterations

    @property
    def applies_itself(self) -> bool:
        """Whether a class of a user's own changes the gradients that it is given to apply."""
        own, base = type(self), Optimizer
        return own.apply is not base.apply or own.apply_gradients is not base.apply_gradients

    def apply_pairs(self, pairs: list[tuple[Any, Variable]]) -> None:
        """What ``apply_gradients`` and ``apply`` do, whatever a subclass does before."""
        meet = turns.brings_gradients()
        check_gradients(pairs, self._positions, once=meet is not None)
        if meet is not None and recording.per_thread.capture is None:
            meet(self, pairs)
            return
        if applied.known.tensors:
            applied.note(self, pairs)
        variables = [v for _, v in pairs]
        tensors = [None if g is None else as_tensor(g, like=v._buffer.dtype) for g, v in pairs]
        recording.call(self._apply if meet is None else self._bring, tensors, variables)

    def _bring(self, tensors: Sequence[Any], variables: Sequence[Variable]) -> None:
        meet = turns.brings_gradients()
        assert meet is not None, "a step that was captured in a turn runs in one"
        meet(self, list(zip(tensors, variables, strict=True)))

    @timeline.timed("update")
    def _apply(self, tensors: Sequence[Any], variables: Sequence[Variable]) -> None:
        if not self._known:
            self.build(variables)
        self.follow_settings()
        if self.loss_scale_factor:
            tensors = [None if t is None else t / self.loss_scale_factor for t in tensors]
        writes = bool(self.clipvalue or self.needs_whole_gradients)
        rounds: list[list[Any]] = [[None] * len(self._known)]  # several, where one comes again
        for tensor, variable in zip(tensors, variables, strict=True):
            if tensor is not None:
                data = dispatch.beside(variable._buffer, tensor._data)
                place, free = self._positions[id(variable)], rounds[0]
                if free[place] is not None:
                    check_not_accumulated(variable, self.gradient_accumulation_steps)
                    rounds += [[None] * len(self._known)]
                    free = next(each for each in rounds if each[place] is None)
                free[place] = data.copy() if writes else data
        step, due = self.begin(rounds[0])
        if due:
            self.before_update(rounds[0], step, *rounds[1:])
            for gradients in rounds:
                if self.by_variable:
                    self._gradients = gradients
                self.update(self._pieces(gradients), step)
        self.after_update(step)

    def _pieces(self, gradients: Sequence[Any]) -> list[Piece]:
        """What is to be updated: the same flat views at every step, for bound kernels."""
        pieces: list[Piece] = []
        for position, gradient in enumerate(gradients):
            if gradient is None:
                continue
            known = self._views.get(position)
            if known is None or not known.recall_loans():
                known = self._views[position] = Views(
                    [self._known[position], *(self.slots[n][position] for n in self.slot_names)]
                )
                known.recall_loans()
            pieces.append((known.value, gradient.reshape(-1), known.slots))
        return pieces

    def apply(self, grads: Sequence[Any], trainable_variables: Any = None) -> None:
        """``apply_gradients`` on two lists; without variables, for those of the first call.

        Nothing happens for no gradients. Raises ValueError unless there is one for each variable.
        """
        if not len(grads):
            return
        variables = self.trained if trainable_variables is None else list(trainable_variables)
        if len(grads) != len(variables):
            raise ValueError(f"{len(grads)} gradients for {len(variables)} variables")
        self.apply_pairs(list(zip(grads, variables, strict=True)))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments; a schedule as a config, a set learning rate as it is now."""
        rate = self._learning_rate
        now = float(rate._buffer) if isinstance(rate, Variable) else serialize(rate.schedule)
        return {**super().get_config(), "learning_rate": now}

    def described(self) -> Any:
        """Its settings, as ranks compare them."""
        from distgrad.keras.described import of_optimizer

        return of_optimizer(self)

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None
    ) -> Optimizer:
        """An optimizer with these settings, and no state; ``custom_objects`` has own schedules."""
        settings = dict(config)
        rate = settings.get("learning_rate")
        if isinstance(rate, Mapping):
            settings["learning_rate"] = schedules.deserialize(rate, custom_objects)
        return cls(**settings)


def _positions(variables: Sequence[Variable]) -> dict[int, int]:
    """The places of variables, which have no hash, by their ids."""
    return {id(variable): place for place, variable in enumerate(variables)}
