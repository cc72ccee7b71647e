"""What a run has left, in use: loaded, evaluated, asked to predict."""

from distgrad.trained.loading import PREPARATION, Trained, find, job_of, keras_file, load, open_run

__all__ = ["PREPARATION", "Trained", "find", "job_of", "keras_file", "load", "open_run"]
