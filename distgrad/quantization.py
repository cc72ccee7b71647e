"""``tf.quantization``: numbers rounded to few bits, for training that allows for that."""

from distgrad.core.later import absent as _absent
from distgrad.ops.fake_quant import (
    fake_quant_with_min_max_args,
    fake_quant_with_min_max_vars,
    fake_quant_with_min_max_vars_per_channel,
)

__all__ = [
    "fake_quant_with_min_max_args",
    "fake_quant_with_min_max_vars",
    "fake_quant_with_min_max_vars_per_channel",
]


__getattr__ = _absent(__name__)
