"""``tf.raw_ops``: operations by the names and arguments that TensorFlow's graphs have for them.

Each is a function of another module of ``distgrad``, and takes its arguments by keyword alone.
Those that scripts use are here; what has no public function has no name here either.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from typing import Any as _Any  # that name is an operation's

from distgrad.core.later import absent as _absent

# A name, the function, and its arguments: each as TensorFlow calls it, after the name that it has
# here where that is another one. With a star it is a list of further arguments by place.
_OPERATIONS = """
Abs abs x
Acos acos x
Acosh acosh x
Add add x y
AddN add_n inputs
AddV2 add x y
All reduce_all input_tensor=input axis keepdims=keep_dims
Angle math.angle input
Any reduce_any input_tensor=input axis keepdims=keep_dims
ArgMax argmax input axis=dimension output_type
ArgMin argmin input axis=dimension output_type
Asin asin x
Asinh asinh x
AsString as_string input precision scientific shortest width fill
Atan atan x
Atan2 atan2 y x
Atanh atanh x
AvgPool nn.avg_pool input=value ksize strides padding data_format
AvgPool3D nn.avg_pool3d input ksize strides padding data_format
BatchMatMul matmul a=x b=y adjoint_a=adj_x adjoint_b=adj_y
BatchMatMulV2 matmul a=x b=y adjoint_a=adj_x adjoint_b=adj_y
Betainc math.betainc a b x
BiasAdd nn.bias_add value bias data_format
Bitcast bitcast input type
BitwiseAnd bitwise.bitwise_and x y
BitwiseOr bitwise.bitwise_or x y
BitwiseXor bitwise.bitwise_xor x y
BroadcastArgs broadcast_dynamic_shape shape_x=s0 shape_y=s1
BroadcastTo broadcast_to input shape
Cast cast x dtype=DstT
Ceil math.ceil x
CheckNumerics debugging.check_numerics tensor message
Cholesky linalg.cholesky input
ClipByValue clip_by_value t clip_value_min clip_value_max
Complex complex real imag
ComplexAbs abs x
Concat concat axis=concat_dim values
ConcatV2 concat values axis
Conj math.conj x=input
Conv2D nn.conv2d input filters=filter strides padding data_format dilations
Conv3D nn.conv3d input filters=filter strides padding data_format dilations
Cos cos x
Cosh cosh x
CropAndResize image.crop_and_resize image boxes box_indices=box_ind crop_size method
 extrapolation_value
Cumprod math.cumprod x axis exclusive reverse
Cumsum cumsum x axis exclusive reverse
DecodeJpeg io.decode_jpeg contents channels ratio
DecodePng io.decode_png contents channels dtype
DepthToSpace nn.depth_to_space input block_size data_format
Diag linalg.tensor_diag diagonal
DiagPart linalg.tensor_diag_part input
Digamma math.digamma x
DivNoNan math.divide_no_nan x y
Einsum einsum equation *inputs
Elu nn.elu features
EnsureShape ensure_shape x=input shape
Equal equal x y
Erf math.erf x
Erfc math.erfc x
Exp exp x
ExpandDims expand_dims input axis
Expm1 math.expm1 x
FFT signal.fft input
FFT2D signal.fft2d input
Fill fill dims value
Floor floor x
FloorDiv math.floordiv x y
FloorMod math.floormod x y
Gather gather params indices
GatherNd gather_nd params indices
GatherV2 gather params indices axis batch_dims
Greater greater x y
GreaterEqual greater_equal x y
Identity identity input
IFFT signal.ifft input
Igamma math.igamma a x
Imag math.imag input
InTopKV2 math.in_top_k predictions targets k
Inv math.reciprocal x
Invert bitwise.invert x
InvertPermutation math.invert_permutation x
IsFinite math.is_finite x
IsInf math.is_inf x
IsNan math.is_nan x
L2Loss nn.l2_loss t
LeakyRelu nn.leaky_relu features alpha
LeftShift bitwise.left_shift x y
Less less x y
LessEqual less_equal x y
Lgamma math.lgamma x
LinSpace linspace start stop num
Log math.log x
Log1p math.log1p x
LogicalAnd logical_and x y
LogicalNot logical_not x
LogicalOr logical_or x y
LogSoftmax nn.log_softmax logits
LRN nn.local_response_normalization input depth_radius bias alpha beta
MatMul matmul a b transpose_a transpose_b
MatrixBandPart linalg.band_part input num_lower num_upper
MatrixDeterminant linalg.det input
MatrixDiag linalg.diag diagonal
MatrixInverse linalg.inv input adjoint
MatrixSolve linalg.solve matrix rhs adjoint
MatrixTriangularSolve linalg.triangular_solve matrix rhs lower adjoint
Max reduce_max input_tensor=input axis keepdims=keep_dims
Maximum maximum x y
MaxPool nn.max_pool input ksize strides padding data_format
MaxPool3D nn.max_pool3d input ksize strides padding data_format
Mean reduce_mean input_tensor=input axis keepdims=keep_dims
Min reduce_min input_tensor=input axis keepdims=keep_dims
Minimum minimum x y
MirrorPad pad tensor=input paddings mode
Mod truncatemod x y
Mul multiply x y
MulNoNan math.multiply_no_nan x y
Neg negative x
NonMaxSuppressionV3 image.non_max_suppression boxes scores max_output_size iou_threshold
 score_threshold
NotEqual not_equal x y
OneHot one_hot indices depth on_value off_value axis
OnesLike ones_like input=x
Pack stack values axis
Pad pad tensor=input paddings
PadV2 pad tensor=input paddings constant_values
Pow pow x y
Prod reduce_prod input_tensor=input axis keepdims=keep_dims
Qr linalg.qr input full_matrices
RandomShuffle random.shuffle value seed
RandomStandardNormal random.normal shape dtype seed
RandomUniform random.uniform shape dtype seed
Range range start limit delta
Rank rank input
Real math.real input
RealDiv realdiv x y
Reciprocal math.reciprocal x
RegexReplace strings.regex_replace input pattern rewrite replace_global
Relu nn.relu features
Relu6 nn.relu6 features
Reshape reshape tensor shape
ReverseV2 reverse tensor axis
RightShift bitwise.right_shift x y
Rint math.rint x
Roll roll input shift axis
Round round x
Rsqrt math.rsqrt x
ScatterNd scatter_nd indices updates shape
SegmentMax math.segment_max data segment_ids
SegmentMean math.segment_mean data segment_ids
SegmentMin math.segment_min data segment_ids
SegmentProd math.segment_prod data segment_ids
SegmentSum math.segment_sum data segment_ids
SelectV2 where condition x=t y=e
Selu nn.selu features
Shape shape input out_type
Sigmoid sigmoid x
Sign sign x
Sin sin x
Sinh sinh x
Size size input out_type
Slice slice input_=input begin size
Softmax nn.softmax logits
Softplus math.softplus features
Softsign nn.softsign features
SpaceToDepth nn.space_to_depth input block_size data_format
Split split axis value num_or_size_splits=num_split
SplitV split value num_or_size_splits=size_splits axis num=num_split
Sqrt sqrt x
Square square x
SquaredDifference math.squared_difference x y
Squeeze squeeze input axis
StopGradient stop_gradient input
StridedSlice strided_slice input_=input begin end strides begin_mask end_mask ellipsis_mask
 new_axis_mask shrink_axis_mask
StringJoin strings.join inputs separator
StringLength strings.length input unit
StringLower strings.lower input encoding
StringToHashBucketFast strings.to_hash_bucket_fast input num_buckets
StringToNumber strings.to_number input=string_tensor out_type
StringUpper strings.upper input encoding
Sub subtract x y
Sum reduce_sum input_tensor=input axis keepdims=keep_dims
Tan tan x
Tanh tanh x
TensorScatterAdd tensor_scatter_nd_add tensor indices updates
TensorScatterMax tensor_scatter_nd_max tensor indices updates
TensorScatterMin tensor_scatter_nd_min tensor indices updates
TensorScatterSub tensor_scatter_nd_sub tensor indices updates
TensorScatterUpdate tensor_scatter_nd_update tensor indices updates
Tile tile input multiples
TopKV2 math.top_k input k sorted
Transpose transpose a=x perm
TruncateDiv truncatediv x y
TruncatedNormal random.truncated_normal shape dtype seed
UnicodeScript strings.unicode_script input
Unique unique x out_idx
Unpack unstack value num axis
UnsortedSegmentMax math.unsorted_segment_max data segment_ids num_segments
UnsortedSegmentMin math.unsorted_segment_min data segment_ids num_segments
UnsortedSegmentProd math.unsorted_segment_prod data segment_ids num_segments
UnsortedSegmentSum math.unsorted_segment_sum data segment_ids num_segments
Where where condition
Xdivy math.xdivy x y
Xlogy math.xlogy x y
ZerosLike zeros_like input=x
Zeta math.zeta x q
"""

_LINES = {line.split()[0]: line for line in _OPERATIONS.replace("\n ", " ").splitlines() if line}
_OWN = ("FusedBatchNormV2", "FusedBatchNormV3")  # which have no other public name
_NAME = inspect.Parameter("name", inspect.Parameter.KEYWORD_ONLY, default=None)


def _operation(name: str, path: str, *arguments: str) -> Callable[..., _Any]:
    function: _Any = functools.reduce(getattr, path.split("."), importlib.import_module("distgrad"))
    own = inspect.signature(function).parameters
    places = {theirs or ours: ours for ours, _, theirs in (a.partition("=") for a in arguments)}
    signature = inspect.Signature(
        [
            inspect.Parameter(
                theirs.lstrip("*"),
                inspect.Parameter.KEYWORD_ONLY,
                default=own[ours].default if ours in own else inspect.Parameter.empty,
            )
            for theirs, ours in places.items()
        ]
        + [_NAME]
    )

    def operation(*args: _Any, **kwargs: _Any) -> _Any:
        """The operation of TensorFlow. Raises TypeError for what are no arguments by keyword."""
        if args:
            raise TypeError(f"{name} takes its arguments by keyword: {name}{signature}")
        try:
            given = signature.bind(**kwargs).arguments
        except TypeError as error:
            raise TypeError(f"{name}{signature}: {error}") from None
        given.pop("name", None)
        if arguments[-1].startswith("*"):
            *first, rest = given.values()
            return function(*first, *rest)
        return function(**{places[theirs]: value for theirs, value in given.items()})

    operation.__name__ = operation.__qualname__ = name
    operation.__signature__ = signature  # type: ignore[attr-defined]
    return operation


def __getattr__(name: str) -> _Any:
    if name in _OWN:
        return getattr(importlib.import_module("distgrad.ops.fused_norm"), name)
    if name not in _LINES:
        _absent(__name__)(name)
    made = globals()[name] = _operation(*_LINES[name].split())
    return made


def __dir__() -> list[str]:
    return [*_LINES, *_OWN]
