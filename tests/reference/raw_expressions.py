"""Operations of ``tf.raw_ops``, whose values are compared: see ``expressions.py``."""

GROUPS: dict[str, tuple[str, list[str]]] = {
    "raw_ops": (
        "rng = np.random.default_rng(0)\n"
        "raw = tf.raw_ops\n"
        "x = tf.constant(rng.normal(size=(2, 3)).astype('float32'))\n"
        "y = tf.constant(rng.normal(size=(2, 3)).astype('float32'))\n"
        "p = tf.constant(rng.uniform(0.1, 0.9, size=(2, 3)).astype('float32'))\n"
        "image = tf.constant(rng.normal(size=(1, 4, 4, 4)).astype('float32'))\n"
        "volume = tf.constant(rng.normal(size=(1, 2, 4, 4, 2)).astype('float32'))\n"
        "square = tf.constant([[2.0, 0.5], [0.5, 1.0]])\n"
        "z = tf.constant([1 + 2j, -0.5j], tf.complex64)\n"
        "i = tf.constant([5, -3, 8])\n"
        "j = tf.constant([2, 2, 3])\n"
        "b = tf.constant([True, False, True])\n"
        "c = tf.constant([True, True, False])\n"
        "pool = dict(ksize=[1, 2, 2, 1], strides=[1, 2, 2, 1], padding='VALID')\n"
        "pool3 = dict(ksize=[1, 2, 2, 2, 1], strides=[1, 2, 2, 2, 1], padding='SAME')\n"
        "boxes = tf.constant([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.9, 1.0], [0.5, 0.5, 1.0, 1.0]])\n"
        "words = tf.constant(['Ab', '1.5'])",
        [
            *[
                f"raw.{name}(x=x)"
                for name in (
                    *("Abs", "Neg", "Sign", "Square", "Exp", "Expm1", "Floor", "Ceil", "Round"),
                    *("Rint", "Erf", "Erfc", "Sigmoid", "Sin", "Cos", "Tan", "Sinh", "Cosh"),
                    *("Tanh", "Atan", "Asinh", "IsNan", "IsInf", "IsFinite", "OnesLike"),
                    *("ZerosLike", "Inv", "Reciprocal"),
                )
            ],
            *[
                f"raw.{name}(x=p)"
                for name in (
                    *("Log", "Log1p", "Sqrt", "Rsqrt", "Asin", "Acos", "Atanh", "Lgamma"),
                    "Digamma",
                )
            ],
            "raw.Acosh(x=p + 1.0)",
            *[
                f"raw.{name}(x=x, y=y)"
                for name in (
                    *("Add", "AddV2", "Sub", "Mul", "RealDiv", "DivNoNan", "MulNoNan", "Maximum"),
                    *("Minimum", "SquaredDifference", "Equal", "NotEqual", "Less", "LessEqual"),
                    *("Greater", "GreaterEqual", "FloorDiv", "FloorMod", "Mod"),
                )
            ],
            *[f"raw.{name}(x=i, y=j)" for name in ("FloorDiv", "FloorMod", "Mod", "TruncateDiv")],
            *[
                f"raw.{name}(x=i, y=j)"
                for name in (*("BitwiseAnd", "BitwiseOr", "BitwiseXor", "LeftShift", "RightShift"),)
            ],
            "raw.Invert(x=i)",
            "raw.Pow(x=p, y=x)",
            "raw.Xlogy(x=x, y=p)",
            "raw.Xdivy(x=x, y=p)",
            "raw.Atan2(y=y, x=x)",
            "raw.Igamma(a=p, x=p)",
            "raw.Betainc(a=[2.0], b=[3.0], x=[0.25])",
            "raw.Zeta(x=p + 1.0, q=p)",
            "raw.AddN(inputs=[x, y, p])",
            "raw.LogicalAnd(x=b, y=c)",
            "raw.LogicalOr(x=b, y=c)",
            "raw.LogicalNot(x=b)",
            "raw.SelectV2(condition=b, t=x, e=y)",
            "raw.Where(condition=b)",
            *[f"raw.{name}(features=x)" for name in ("Softplus", "Softsign", "Relu", "Relu6")],
            *[f"raw.{name}(features=x)" for name in ("LeakyRelu", "Elu", "Selu")],
            "raw.LeakyRelu(features=x, alpha=0.5)",
            "raw.Softmax(logits=x)",
            "raw.LogSoftmax(logits=x)",
            "raw.BiasAdd(value=x, bias=[1.0, 2.0, 3.0])",
            "raw.L2Loss(t=x)",
            "raw.MatMul(a=x, b=y, transpose_b=True)",
            "raw.BatchMatMul(x=x, y=y, adj_x=True)",
            "raw.BatchMatMulV2(x=x, y=y, adj_y=True)",
            "raw.Einsum(inputs=[x, y], equation='ab,cb->ac')",
            "raw.Conv2D(input=image, filter=tf.ones((2, 2, 4, 1)), strides=[1, 1, 1, 1], "
            "padding='SAME')",
            "raw.Conv3D(input=volume, filter=tf.ones((2, 2, 2, 2, 1)), strides=[1] * 5, "
            "padding='VALID')",
            "raw.MaxPool(input=image, **pool)",
            "raw.AvgPool(value=image, **pool)",
            "raw.MaxPool3D(input=volume, **pool3)",
            "raw.AvgPool3D(input=volume, **pool3)",
            "raw.LRN(input=image, depth_radius=1)",
            "raw.DepthToSpace(input=image, block_size=2)",
            "raw.SpaceToDepth(input=image, block_size=2)",
            *[f"raw.{name}(input=x, axis=1)" for name in ("Sum", "Mean", "Prod", "Max", "Min")],
            "raw.Sum(input=x, axis=[0, 1], keep_dims=True)",
            "raw.All(input=b, axis=0)",
            "raw.Any(input=b, axis=0)",
            "raw.ArgMax(input=x, dimension=1)",
            "raw.ArgMin(input=x, dimension=0, output_type=tf.int32)",
            "raw.Cumsum(x=x, axis=1, exclusive=True)",
            "raw.Cumprod(x=x, axis=0, reverse=True)",
            "raw.Cast(x=x, DstT=tf.int32)",
            "raw.Bitcast(input=x, type=tf.int32)",
            "raw.Identity(input=x)",
            "raw.StopGradient(input=x)",
            "raw.CheckNumerics(tensor=x, message='finite')",
            "raw.EnsureShape(input=x, shape=[None, 3])",
            "raw.Reshape(tensor=x, shape=[3, 2])",
            "raw.Squeeze(input=x[:1])",
            "raw.Squeeze(input=x[:1], axis=[0])",
            "raw.ExpandDims(input=x, axis=1)",
            "raw.Transpose(x=x, perm=[1, 0])",
            "raw.ConcatV2(values=[x, y], axis=1)",
            "raw.Concat(concat_dim=0, values=[x, y])",
            "raw.Pack(values=[x, y], axis=1)",
            "raw.Unpack(value=x, num=3, axis=1)",
            "raw.Split(axis=1, value=x, num_split=3)",
            "raw.SplitV(value=x, size_splits=[1, 2], axis=1, num_split=2)",
            "raw.Slice(input=x, begin=[0, 1], size=[2, 2])",
            "raw.StridedSlice(input=x, begin=[0, 0], end=[2, 3], strides=[1, 2], end_mask=1)",
            "raw.Tile(input=x, multiples=[1, 2])",
            "raw.Pad(input=x, paddings=[[0, 1], [1, 0]])",
            "raw.PadV2(input=x, paddings=[[0, 1], [1, 0]], constant_values=2.0)",
            "raw.MirrorPad(input=x, paddings=[[0, 1], [1, 0]], mode='REFLECT')",
            "raw.ReverseV2(tensor=x, axis=[1])",
            "raw.Roll(input=x, shift=1, axis=1)",
            "raw.Fill(dims=[2, 2], value=3.0)",
            "raw.Range(start=1, limit=7, delta=2)",
            "raw.LinSpace(start=0.0, stop=1.0, num=5)",
            "raw.Shape(input=x)",
            "raw.Shape(input=x, out_type=tf.int64)",
            "raw.Size(input=x)",
            "raw.Rank(input=x)",
            "raw.OneHot(indices=j, depth=4, on_value=1.0, off_value=0.0)",
            "raw.Gather(params=x, indices=[1, 0])",
            "raw.GatherV2(params=x, indices=[2, 0], axis=1)",
            "raw.GatherNd(params=x, indices=[[0, 1], [1, 2]])",
            "raw.ScatterNd(indices=[[0], [2], [0]], updates=[1.0, 2.0, 3.0], shape=[4])",
            *[
                f"raw.TensorScatter{how}(tensor=x, indices=[[1, 2]], updates=[9.0])"
                for how in ("Update", "Add", "Sub", "Max", "Min")
            ],
            "raw.BroadcastTo(input=x, shape=[2, 2, 3])",
            "raw.BroadcastArgs(s0=[2, 1], s1=[3])",
            "raw.InvertPermutation(x=[2, 0, 1])",
            "tuple(raw.TopKV2(input=x, k=2))",
            "tuple(raw.Unique(x=j))",
            "raw.InTopKV2(predictions=x, targets=[0, 2], k=2)",
            *[
                f"raw.Segment{how}(data=x, segment_ids=[0, 0])"
                for how in ("Sum", "Mean", "Max", "Min", "Prod")
            ],
            *[
                f"raw.UnsortedSegment{how}(data=x, segment_ids=[1, 0], num_segments=2)"
                for how in ("Sum", "Max", "Min", "Prod")
            ],
            "raw.MatrixInverse(input=square)",
            "raw.MatrixDeterminant(input=square)",
            "raw.MatrixSolve(matrix=square, rhs=[[1.0], [2.0]])",
            "raw.MatrixTriangularSolve(matrix=square, rhs=[[1.0], [2.0]], lower=False)",
            "raw.MatrixDiag(diagonal=[1.0, 2.0])",
            "raw.MatrixBandPart(input=square, num_lower=0, num_upper=-1)",
            "raw.Cholesky(input=square)",
            "tf.abs(raw.Qr(input=square)[1])",
            "raw.Diag(diagonal=[1.0, 2.0])",
            "raw.DiagPart(input=square)",
            "raw.ClipByValue(t=x, clip_value_min=-0.5, clip_value_max=0.5)",
            "raw.Real(input=z)",
            "raw.Imag(input=z)",
            "raw.Conj(input=z)",
            "raw.Angle(input=z)",
            "raw.ComplexAbs(x=z)",
            "raw.Complex(real=[1.0], imag=[2.0])",
            "raw.FFT(input=z)",
            "raw.IFFT(input=z)",
            "raw.FFT2D(input=tf.stack([z, z]))",
            "raw.CropAndResize(image=image, boxes=boxes, box_ind=[0, 0, 0], crop_size=[2, 2])",
            "raw.NonMaxSuppressionV3(boxes=boxes, scores=[0.9, 0.8, 0.7], max_output_size=3, "
            "iou_threshold=0.5, score_threshold=0.0)",
            "raw.RandomUniform(shape=[2, 3], dtype=tf.float32).shape",
            "raw.RandomStandardNormal(shape=[2, 3], dtype=tf.float64).dtype.name",
            "raw.TruncatedNormal(shape=[2, 3], dtype=tf.float32).shape",
            "tf.sort(raw.RandomShuffle(value=j))",
            "raw.StringJoin(inputs=[words, words], separator='-')",
            "raw.StringLower(input=words)",
            "raw.StringUpper(input=words)",
            "raw.StringLength(input=words)",
            "raw.StringToNumber(string_tensor=words[1:])",
            "raw.StringToHashBucketFast(input=words, num_buckets=10)",
            "raw.RegexReplace(input=words, pattern='[0-9]', rewrite='x')",
            "raw.AsString(input=j)",
            "raw.UnicodeScript(input=[97, 0x3042, -1, 0x110000])",
            "tf.strings.unicode_script(tf.ragged.constant([[97], [0x3042, 0x410]]))",
            "raw.DecodePng(contents=tf.io.encode_png(tf.zeros((2, 2, 3), tf.uint8)), channels=1)",
            "raw.DecodeJpeg(contents=tf.io.encode_jpeg(tf.zeros((8, 8, 3), tf.uint8)), channels=1)",
        ],
    ),
}
