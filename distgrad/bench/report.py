"""What was measured, as a table and as values."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distgrad.bench.world import Answer, World


@dataclass(frozen=True)
class Timing:
    """One number of workers: seconds a step (of each round), their median parts, and its costs.

    ``communication`` is None where it goes on beside the computation. ``start`` is until all is
    imported, ``set_up`` until the first step is done; ``memory`` is in bytes.
    """

    workers: int
    steps_a_round: int
    rounds: list[float]
    data: float
    communication: float | None
    samples_a_step: float
    start: float
    set_up: float
    memory: int

    @classmethod
    def of(cls, world: World, answers: Sequence[Answer], steps: int) -> Timing:
        def median(name: str) -> float:
            return statistics.median(getattr(answer, name) for answer in answers)

        known = [each.communication for each in answers if each.communication is not None]
        alone = 0.0 if world.workers == 1 else None
        return cls(
            workers=world.workers,
            steps_a_round=steps,
            rounds=[answer.step for answer in answers],
            data=median("data"),
            communication=statistics.median(known) if known else alone,
            samples_a_step=sum(answer.samples for answer in answers) / len(answers),
            start=world.start,
            set_up=world.set_up,
            memory=max(answer.memory for answer in answers),
        )

    @property
    def step(self) -> float:
        return statistics.median(self.rounds)

    @property
    def compute(self) -> float:
        """All but waiting for data, and communication where that is known."""
        return max(0.0, self.step - self.data - (self.communication or 0.0))

    @property
    def samples_per_second(self) -> float:
        return self.samples_a_step / self.step


@dataclass(frozen=True)
class Report:
    """All numbers of workers, the first being what the others are compared with."""

    job: str
    launcher: str
    timings: list[Timing]
    notes: list[str]

    def speed_up(self, timing: Timing) -> float:
        """The median over the rounds, each of which had the same disturbances."""
        first = self.timings[0]
        ratios = [a / b for a, b in zip(first.rounds, timing.rounds, strict=True)]
        return statistics.median(ratios)

    def efficiency(self, timing: Timing) -> float:
        return self.speed_up(timing) * self.timings[0].workers / timing.workers

    def as_dict(self) -> dict[str, Any]:
        """Times in seconds, memory in bytes."""
        return {
            "job": self.job,
            "launcher": self.launcher,
            "timings": [
                {
                    **dataclasses.asdict(each),
                    "step": each.step,
                    "compute": each.compute,
                    "samples_per_second": each.samples_per_second,
                    "speed_up": self.speed_up(each),
                    "efficiency": self.efficiency(each),
                }
                for each in self.timings
            ],
            "notes": self.notes,
        }

    def table(self) -> str:
        """A line for each number of workers, and the notes."""
        columns: dict[str, Callable[[Timing], str]] = {
            "workers": lambda t: str(t.workers),
            "ms a step (range)": lambda t: (
                f"{1e3 * t.step:.3g} ({1e3 * min(t.rounds):.3g} to {1e3 * max(t.rounds):.3g})"
            ),
            "samples/s": lambda t: f"{t.samples_per_second:,.0f}",
            "speed-up": lambda t: f"{self.speed_up(t):.2f}",
            "efficiency": lambda t: f"{100 * self.efficiency(t):.0f}%",
            "data": lambda t: f"{1e3 * t.data:.3g}",
            "compute": lambda t: f"{1e3 * t.compute:.3g}",
            "communication": lambda t: (
                "beside" if t.communication is None else f"{1e3 * t.communication:.3g}"
            ),
            "set-up s": lambda t: f"{t.set_up:.1f}",
            "MiB a worker": lambda t: f"{t.memory / (1 << 20):.0f}",
        }
        rows = [list(columns), *([cell(t) for cell in columns.values()] for t in self.timings)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(columns))]
        lines = ["  ".join(map(str.rjust, row, widths)) for row in rows]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])
