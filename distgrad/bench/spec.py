"""What a rank of a job that is timed gets to know."""

from __future__ import annotations

from dataclasses import dataclass

from distgrad.job import Job


@dataclass(frozen=True)
class Spec:
    """What a rank is told: the job, who starts its ranks, and who measures, with a secret."""

    job: Job
    launcher: str
    address: str
    token: str
