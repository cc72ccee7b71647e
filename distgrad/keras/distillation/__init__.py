"""Distillation: a small model learns from the outputs of a large one."""

from distgrad.keras.distillation.distiller import Distiller
from distgrad.keras.distillation.losses import (
    DistillationLoss,
    FeatureDistillation,
    LogitsDistillation,
)

__all__ = ["DistillationLoss", "Distiller", "FeatureDistillation", "LogitsDistillation"]
