"""What a run has left, in use: loaded, evaluated, asked to predict."""

from distgrad.trained.loading import PREPARATION, Trained, job_of, keras_file, load, open_run

__all__ = ["PREPARATION", "Trained", "job_of", "keras_file", "load", "open_run"]
