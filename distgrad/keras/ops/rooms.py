"""``keras.ops.nn``, ``linalg`` and ``numpy``: the functions of ``keras.ops`` by their kind."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

_NN = """
adaptive_average_pool adaptive_max_pool average_pool batch_normalization binary_crossentropy
categorical_crossentropy celu conv conv_transpose ctc_decode ctc_loss depth_to_space depthwise_conv
dot_product_attention elu fold gelu glu hard_shrink hard_sigmoid hard_silu hard_swish hard_tanh
layer_normalization leaky_relu log_sigmoid log_softmax max_pool moments multi_hot normalize one_hot
polar psnr relu relu6 rms_normalization selu separable_conv sigmoid silu soft_shrink softmax
softplus softsign space_to_depth sparse_categorical_crossentropy sparse_plus sparse_sigmoid
sparsemax squareplus swish tanh_shrink threshold unfold
"""
_LINALG = """
cholesky cholesky_inverse det eig eigh inv jvp lstsq lu_factor matrix_rank norm pinv qr solve
solve_triangular svd
"""
# Neither of them, nor of NumPy.
_OTHERS = """
associative_scan cast cdist cond convert_to_numpy convert_to_tensor custom_gradient dtype erf erfc
erfinv extract_sequences fft fft2 fori_loop ifft2 in_top_k irfft is_tensor istft logdet logsumexp
map rearrange rfft rsqrt saturate_cast scan scatter scatter_update segment_max segment_min
segment_prod segment_sum shape slice slice_update stft stop_gradient switch top_k unstack
vectorized_map view_as_complex view_as_real while_loop
"""


class Room(ModuleType):
    """A module of some of the functions of ``keras.ops``, looked up when asked for."""

    def __init__(self, name: str) -> None:
        super().__init__(f"distgrad.keras.ops.{name}", __doc__)
        self._kind = name

    def __dir__(self) -> list[str]:
        known = importlib.import_module("distgrad.keras.ops").__all__
        own = {"nn": _NN, "linalg": _LINALG}.get(self._kind)
        if own is not None:
            return sorted(set(own.split()) & set(known))
        return sorted(set(known).difference(*(t.split() for t in (_NN, _LINALG, _OTHERS))))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in dir(self):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module("distgrad.keras.ops"), name)
