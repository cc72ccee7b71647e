"""``tf.nn``."""

from distgrad.core.later import later as _later
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
from distgrad.ops.blocks import depth_to_space, space_to_batch, space_to_depth
from distgrad.ops.convolution import (
    atrous_conv2d,
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
from distgrad.ops.ctc import ctc_loss
from distgrad.ops.exponential import sigmoid, softplus
from distgrad.ops.neighbours import (
    bias_add,
    dilation2d,
    erosion2d,
    local_response_normalization,
    lrn,
    max_pool_with_argmax,
    pool,
)
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
from distgrad.ops.summaries import normalize_moments, sufficient_statistics, weighted_moments
from distgrad.ops.trigonometric import tanh

# What few scripts use, or knows the processes.
_LATER = {
    **dict.fromkeys(
        ["compute_average_loss", "scale_regularization_loss"], "distgrad.distribute.losses"
    ),
    "embedding_lookup_sparse": "distgrad.ops.embedding_sums",
    **dict.fromkeys(["ctc_beam_search_decoder", "ctc_greedy_decoder"], "distgrad.ops.ctc_decoding"),
    **dict.fromkeys(
        [
            "approx_max_k",
            "approx_min_k",
            "atrous_conv2d_transpose",
            "batch_norm_with_global_normalization",
            "collapse_repeated",
            "ctc_unique_labels",
            "depthwise_conv2d_backprop_filter",
            "depthwise_conv2d_backprop_input",
            "experimental",
            "isotonic_regression",
        ],
        "distgrad.ops.rare_nn",
    ),
    **dict.fromkeys(["nce_loss", "sampled_softmax_loss"], "distgrad.ops.sampled_losses"),
    **dict.fromkeys(
        ["all_candidate_sampler", "compute_accidental_hits", "fixed_unigram_candidate_sampler"],
        "distgrad.ops.candidates",
    ),
}
__all__ = [*(name for name in dir() if not name.startswith("_")), *_LATER]

__getattr__, __dir__ = _later(__name__, globals(), _LATER)
