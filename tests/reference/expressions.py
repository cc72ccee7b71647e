"""Expressions over ``tf`` whose values are compared: groups of them, each after some lines.

``make_expression_reference.py`` keeps what TensorFlow makes of them.
"""

GROUPS: dict[str, tuple[str, list[str]]] = {
    "operators": (
        "mask = tf.constant([True, False, True])\n"
        "z = tf.constant([1 + 2j, -0.5j, 2 + 0j], tf.complex64)\n"
        "v = tf.Variable([1.0, 2.0, 3.0])\n"
        "def slices(*values): return tf.IndexedSlices(tf.constant(values), tf.constant([0, 0, 2]))",
        [
            "mask * mask",
            "mask * tf.constant(False)",
            "mask * True",
            "True * mask",
            "gradient(tf.reduce_prod, z)",
            "tf.math.bincount([])",
            "tf.math.bincount(tf.constant([True, False, True]))",
            "tf.one_hot([], 3)",
            "tf.one_hot(np.array([0.0, 2.0]), 3)",
            "tf.clip_by_global_norm([], 1.0)[1]",
            "v.scatter_add(slices(1.0, 2.0, 3.0)) + 0",
            "v.scatter_sub(slices(1.0, 2.0, 3.0)) + 0",
            "v.scatter_update(tf.IndexedSlices(tf.constant([7.0]), tf.constant([1]))) + 0",
            "tf.TensorShape([1, 2]) + [3]",
            "[3] + tf.TensorShape([1, 2])",
            "tf.TensorShape([1, None]).concatenate([3])",
            "tf.TensorShape([1, None]).is_compatible_with([1, 3])",
            "tf.TensorShape([1, 2]).is_compatible_with([1, 3])",
            "tf.uint8.is_unsigned, tf.float32.base_dtype.name, tf.int8.is_compatible_with('int8')",
            "tf.executing_eagerly(), tf.group(), tf.no_op()",
            "tf.config.list_physical_devices('CPU')[0].name",
            "tf.config.list_logical_devices('CPU')[0].name",
            "len(tf.config.experimental.list_physical_devices('TPU'))",
        ],
    ),
    "raw_ops": (
        "rng = np.random.default_rng(0)\n"
        "x = tf.constant(rng.normal(size=(2, 3, 4, 2)).astype('float32'))\n"
        "v = tf.constant([0.5, 2.0])\n"
        "def fused(x=x, scale=v, mean=v * 3, **more): return tf.raw_ops.FusedBatchNormV3("
        "x=x, scale=scale, offset=v * 2, mean=mean, variance=v * 4, **more)",
        [
            "fused()[:3]",
            "fused(epsilon=0.1, exponential_avg_factor=0.25)[:3]",
            "fused(is_training=False)[:3]",
            "tf.raw_ops.FusedBatchNormV2(x=x, scale=v, offset=v, mean=v, variance=v)[:3]",
            "gradient(lambda a: (fused(x=a)[0] / 8) ** 3, x)",
            "gradient(lambda a: fused(x=a, is_training=False)[0] ** 3, x)",
            "gradient(lambda a: fused(scale=a)[0] ** 3, v)",
        ],
    ),
    "functions": (
        "rng = np.random.default_rng(0)\n"
        "x = tf.constant(rng.normal(size=(2, 4, 6, 4)).astype('float32'))\n"
        "w = tf.constant(rng.normal(size=(2, 4)).astype('float32'))",
        [
            "tf.nn.bias_add(x, [1.0, 2.0, 3.0, 4.0])",
            "tf.nn.bias_add(x, [1.0, 2.0, 3.0, 4.0], data_format='NCHW')",
            "tf.nn.depth_to_space(x, 2)",
            "tf.nn.space_to_depth(x, 2)",
            "tf.nn.local_response_normalization(x, 1, 2.0, 0.5, 0.75)",
            "gradient(lambda a: tf.nn.local_response_normalization(a, 1), x)",
            "gradient(lambda a: tf.nn.depth_to_space(a, 2) ** 2, x)",
            "tf.nn.zero_fraction([0, 1, 0, 2])",
            "tf.nn.compute_average_loss([1.0, 2.0, 6.0])",
            "tf.nn.compute_average_loss([1.0, 2.0], [0.5, 1.0], global_batch_size=8)",
            "tf.nn.scale_regularization_loss([1.0, 2.0])",
            "tf.math.zero_fraction(tf.nn.relu(w))",
            "tf.linalg.normalize(w)",
            "tf.linalg.normalize(w, ord=1, axis=1)",
            "tf.math.confusion_matrix([0, 1, 2, 2], [0, 2, 2, 2])",
            "tf.math.confusion_matrix([0, 1], [1, 1], num_classes=3, dtype=tf.float32)",
            "tf.math.confusion_matrix([0, 1], [1, 1], weights=[0.5, 2.0], dtype=tf.float32)",
        ],
    ),
    "images": (
        "rng = np.random.default_rng(0)\n"
        "x = tf.constant(rng.uniform(size=(2, 5, 6, 3)).astype('float32'))\n"
        "u = tf.constant(rng.integers(0, 255, (4, 4, 3)).astype('uint8'))\n"
        "edges = [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.2, 0.2, 0.1], [0.5, 1.0, 1.0]]\n"
        "edges = tf.constant([edges])",
        [
            "tf.image.rot90(x)",
            "tf.image.rot90(u, k=2)",
            "tf.image.rot90(x[0], 3)",
            "tf.image.rot90(x, -1)",
            "tf.image.transpose(x)",
            "tf.image.grayscale_to_rgb(x[..., :1])",
            "tf.image.central_crop(x, 0.5)",
            "tf.image.central_crop(u, 0.3)",
            "tf.image.crop_to_bounding_box(x, 1, 1, 2, 3)",
            "tf.image.pad_to_bounding_box(x, 1, 2, 8, 9)",
            "tf.image.resize_with_crop_or_pad(x, 8, 3)",
            "tf.image.resize_with_crop_or_pad(u, 3, 9)",
            "tf.image.per_image_standardization(x)",
            "tf.image.per_image_standardization(u)",
            "tf.image.per_image_standardization(tf.ones([2, 2, 1]))",
            "tf.image.adjust_gamma(x, 2.0, 0.5)",
            "tf.image.adjust_gamma(u, 0.5)",
            "tf.image.rgb_to_hsv(x)",
            "tf.image.rgb_to_hsv(edges)",
            "tf.image.hsv_to_rgb(x)",
            "tf.image.hsv_to_rgb(edges)",
            "tf.image.adjust_hue(x, 0.3)",
            "tf.image.adjust_hue(u, -0.2)",
            "tf.image.adjust_saturation(x, 0.5)",
            "tf.image.adjust_saturation(u, 3.0)",
            "tf.image.image_gradients(x)",
            "tf.image.psnr(x, x * 0.5, 1.0)",
            "tf.image.psnr(u, u // 2, 255)",
            "tf.image.resize(x, [10, 20], preserve_aspect_ratio=True)",
            "tf.image.resize(u, [2, 7], tf.image.ResizeMethod.NEAREST_NEIGHBOR, True)",
            "tf.image.random_flip_left_right(x).shape",
            "tf.image.random_flip_up_down(x[0]).shape",
            "tf.image.random_brightness(x, 0.0)",
            "tf.image.random_contrast(u, 0.1, 0.5).shape",
            "tf.image.random_saturation(x, 0.5, 1.0).shape",
            "tf.image.random_hue(x, 0.1).shape",
            "tf.image.random_crop(x, [2, 3, 3, 3]).shape",
            "tf.image.random_crop(x, [2, 5, 6, 3])",
        ],
    ),
    "sparse_arguments": (
        "a = tf.sparse.from_dense([[0.0, 2.0], [3.0, 0.0]])\n"
        "many = tf.SparseTensorSpec([None, None], tf.float32)\n"
        "matrix = tf.TensorSpec([None, None])\n"
        "times = tf.function(tf.sparse.sparse_dense_matmul, input_signature=[many, matrix])\n"
        "pair = tf.function(\n"
        "    lambda two: tf.sparse.sparse_dense_matmul(two[1], two[0]),\n"
        "    input_signature=[(matrix, many)])\n"
        "x = tf.ones([2, 1])",
        [
            "tf.shape(a), tf.shape(a, out_type=tf.int64)[0], tf.size(a), tf.rank(a)",
            "times(a, x), times(a * 2.0, x)",
            "pair((x, a))",
            "tf.function(lambda a, x: tf.shape(a)[0])(a, x)",
        ],
    ),
    "keras_backend_layers": (
        "K = tf.keras.backend\n"
        "rng = np.random.default_rng(0)\n"
        "def r(*shape): return tf.constant(rng.normal(size=shape).astype('float32'))\n"
        "x, k, volume = r(2, 5, 4, 3), r(3, 2, 3, 2), r(1, 3, 4, 2, 2)\n"
        "y = tf.constant([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])\n"
        "p = tf.constant([[0.2, 0.3, 0.5], [0.9, 0.05, 0.05]])\n"
        "v = tf.Variable([1.0, 2.0])\n"
        "a = tf.sparse.from_dense([[0.0, 2.0], [3.0, 0.0]])",
        [
            "K.batch_normalization(x, x[0, 0, 0], abs(x[0, 0, 1]), x[0, 0, 2], x[0, 1, 0])",
            "K.binary_focal_crossentropy(y, p)",
            "K.binary_focal_crossentropy(y, p, True, 0.3, 1.5)",
            "K.binary_focal_crossentropy(y, p - 0.5, from_logits=True)",
            "K.categorical_focal_crossentropy(y, p * 2)",
            "K.categorical_focal_crossentropy(y, p, 0.5, 1.5, from_logits=True)",
            "K.conv2d_transpose(x, r(3, 2, 4, 3), (2, 7, 5, 4))",
            "K.conv2d_transpose(x, r(3, 2, 4, 3), (None, 10, 8, 4), (2, 2), 'same')",
            "K.depthwise_conv2d(x, k)",
            "K.depthwise_conv2d(x, k, (2, 2), 'same')",
            "K.depthwise_conv2d(x, k, dilation_rate=(2, 2))",
            "K.separable_conv2d(x, k, r(1, 1, 6, 4), padding='same')",
            "K.foldl(lambda one, other: one * 2 + other, p)",
            "K.foldr(lambda one, other: one * 2 + other, p, y[0])",
            "K.is_sparse(a), K.is_sparse(x), K.is_sparse(v), K.to_dense(a), K.to_dense(p)",
            "K.moving_average_update(v, [5.0, 6.0], 0.75) + 0",
            "K.pool3d(volume, (2, 2, 2))",
            "K.pool3d(volume, (2, 2, 1), (2, 2, 1), 'same', pool_mode='avg')",
            "K.resize_volumes(volume, 2, 1, 3, 'channels_last')",
            "K.resize_volumes(volume, 2, 1, 3, 'channels_first')",
            "K.spatial_3d_padding(volume, ((1, 0), (0, 2), (1, 1)))",
            "K.spatial_3d_padding(volume, data_format='channels_first')",
            "K.random_normal_variable((2, 3), 0.0, 1.0).shape",
            "K.random_uniform_variable((2, 3), 0.0, 1.0).dtype.name",
        ],
    ),
    "keras_backend": (
        "K = tf.keras.backend\n"
        "x = tf.constant([[1.0, -2.0, 3.0], [0.5, 0.25, 0.0]])\n"
        "p = tf.constant([[0.2, 0.3, 0.5], [0.9, 0.05, 0.05]])\n"
        "y = tf.constant([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])\n"
        "v = tf.Variable([1.0, 2.0])",
        [
            "K.all(x > 0, axis=1)",
            "K.argmax(x)",
            "K.batch_flatten(tf.ones([2, 3, 4]))",
            "K.binary_crossentropy(y, p)",
            "K.binary_crossentropy(y, x, from_logits=True)",
            "K.cast_to_floatx(np.array([1, 2]))",
            "K.cast_to_floatx(x > 0)",
            "K.categorical_crossentropy(y, p * 2)",
            "K.categorical_crossentropy(y, x, from_logits=True)",
            "K.clip(x, 0, 1)",
            "K.clip(x, None, 1.0)",
            "K.clip(x, 2, 1)",
            "K.concatenate([x, x])",
            "K.constant([1, 2])",
            "K.count_params(v)",
            "K.dot(x, tf.ones([3, 2]))",
            "K.dot(tf.ones([2, 3, 4]), tf.ones([5, 4, 2]))",
            "K.dtype(x)",
            "K.eval(v)",
            "K.expand_dims(x)",
            "K.flatten(x)",
            "K.int_shape(x)",
            "K.max(x, axis=0, keepdims=True)",
            "K.mean(x, axis=-1)",
            "K.mean(x > 0)",
            "K.ndim(x)",
            "K.one_hot(tf.constant([0, 1]), 3)",
            "K.permute_dimensions(x, (1, 0))",
            "K.random_normal((2, 3)).shape",
            "K.random_uniform((2,)).dtype.name",
            "K.softmax(x)",
            "K.sparse_categorical_crossentropy(tf.constant([2, 0]), p)",
            "K.sparse_categorical_crossentropy(tf.constant([[2], [0]]), x, from_logits=True)",
            "K.std(x, axis=0)",
            "K.sum(x, axis=1)",
            "K.transpose(x)",
            "K.update(v, [3.0, 4.0]) + 0",
            "K.update_add(v, [1.0, 1.0]) + 0",
            "K.update_sub(v, [1.0, 1.0]) + 0",
            "K.set_value(v, [5.0, 6.0])",
            "v + 0",
            "K.var(x, axis=1)",
            "K.variable([1, 2]) + 0",
            "K.zeros((2,)) + K.ones((2,)) + K.eye(2)",
        ],
    ),
}


def values(tf, np, groups):
    """What each expression of each of ``groups`` gives, in the form that JSON keeps."""

    def gradient(function, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        return tape.gradient(y, x)

    def raised(call):
        try:
            return call()
        except tf.errors.InvalidArgumentError:
            return "InvalidArgumentError"
        except Exception as error:
            return type(error).__name__

    found = {}
    for group, (lines, expressions) in groups.items():
        names = {"tf": tf, "np": np, "gradient": gradient, "raised": raised}
        exec(lines, names)
        found[group] = {each: plain(eval(each, names), np) for each in expressions}
    return found


def plain(value, np):
    """A tensor or an array as dtype, shape and numbers; a tuple, or a composite one, as a list."""
    if isinstance(value, bytes):
        return value.decode()
    if value is None or (
        isinstance(value, (bool, int, float, str)) and not hasattr(value, "numpy")
    ):
        return value
    if hasattr(value, "nested_row_splits"):
        splits = [splits.numpy().tolist() for splits in value.nested_row_splits]
        return ["ragged", value.shape.as_list(), splits, plain(value.flat_values, np)]
    if hasattr(value, "indices") and hasattr(value, "dense_shape"):
        parts = [value.indices, value.dense_shape, value.values]
        return ["sparse", *[plain(each, np) for each in parts]]
    if hasattr(value, "rank") and hasattr(value, "as_list"):
        return value.as_list()
    if isinstance(value, (list, tuple)):
        return [plain(each, np) for each in value]
    array = np.asarray(value.numpy() if hasattr(value, "numpy") else value)
    if array.dtype.kind in "OSU":
        texts = [text.decode() for text in array.ravel()]
        return {"dtype": "string", "shape": list(array.shape), "values": texts}
    parts = array.view(f"f{array.itemsize // 2}") if array.dtype.kind == "c" else array
    numbers = [float(f"{n:.8g}") if parts.dtype.kind == "f" else int(n) for n in parts.ravel()]
    return {"dtype": array.dtype.name, "shape": list(array.shape), "values": numbers}
