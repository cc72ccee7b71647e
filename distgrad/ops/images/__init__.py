"""More functions of ``tf.image``, for numbers alone: loaded at the first use of ``tf.image``."""
