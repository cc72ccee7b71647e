"""Numbers and words that all of Keras asks for; `keras.config` and `keras.backend` set them."""

from __future__ import annotations

epsilon = 1e-7  # probabilities are kept this far from 0 and 1
image_data_format = "channels_last"
max_epochs: int | None = None  # fit goes on for no more epochs than this
max_steps_per_epoch: int | None = None
interactive_logging = True  # else fit and its like print plain lines
