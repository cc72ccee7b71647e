"""``tf.nn``."""

from distgrad.ops.activations import (
    crelu,
    elu,
    gelu,
    hard_sigmoid,
    hard_silu,
    hard_swish,
    leaky_relu,
    mish,
    relu,
    relu6,
    selu,
    silu,
    softsign,
    swish,
)
from distgrad.ops.blocks import (
    bias_add,
    depth_to_space,
    local_response_normalization,
    space_to_depth,
)
from distgrad.ops.convolution import (
    conv1d,
    conv1d_transpose,
    conv2d,
    conv2d_transpose,
    conv3d,
    conv3d_transpose,
    conv_transpose,
    convolution,
    depthwise_conv2d,
    separable_conv2d,
)
from distgrad.ops.cross_entropy import (
    l2_loss,
    log_poisson_loss,
    sigmoid_cross_entropy_with_logits,
    softmax_cross_entropy_with_logits,
    sparse_softmax_cross_entropy_with_logits,
    weighted_cross_entropy_with_logits,
)
from distgrad.ops.exponential import sigmoid, softplus
from distgrad.ops.nn import dropout, embedding_lookup, in_top_k, log_softmax, softmax
from distgrad.ops.normalization import batch_normalization, l2_normalize
from distgrad.ops.pooling import (
    avg_pool,
    avg_pool1d,
    avg_pool2d,
    avg_pool3d,
    max_pool,
    max_pool1d,
    max_pool2d,
    max_pool3d,
)
from distgrad.ops.sorting import top_k
from distgrad.ops.statistics import moments, zero_fraction
from distgrad.ops.trigonometric import tanh

__all__ = [
    "avg_pool",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "batch_normalization",
    "bias_add",
    "conv1d",
    "conv1d_transpose",
    "conv2d",
    "conv2d_transpose",
    "conv3d",
    "conv3d_transpose",
    "conv_transpose",
    "convolution",
    "crelu",
    "depth_to_space",
    "depthwise_conv2d",
    "dropout",
    "elu",
    "embedding_lookup",
    "gelu",
    "hard_sigmoid",
    "hard_silu",
    "hard_swish",
    "in_top_k",
    "l2_loss",
    "l2_normalize",
    "leaky_relu",
    "local_response_normalization",
    "log_poisson_loss",
    "log_softmax",
    "max_pool",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "mish",
    "moments",
    "relu",
    "relu6",
    "selu",
    "separable_conv2d",
    "sigmoid",
    "sigmoid_cross_entropy_with_logits",
    "silu",
    "softmax",
    "softmax_cross_entropy_with_logits",
    "softplus",
    "softsign",
    "space_to_depth",
    "sparse_softmax_cross_entropy_with_logits",
    "swish",
    "tanh",
    "top_k",
    "weighted_cross_entropy_with_logits",
    "zero_fraction",
]


def __getattr__(name: str) -> object:
    if name in ("compute_average_loss", "scale_regularization_loss"):  # of strategies
        from distgrad.distribute import losses

        return getattr(losses, name)
    raise AttributeError(f"module 'distgrad.nn' has no attribute {name!r}")
