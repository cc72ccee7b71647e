"""Names of TensorFlow that do not exist here, and what to use instead."""

_STRATEGY = "workers on CPUs and CUDA GPUs share each batch: use MirroredStrategy"
_JOINS = "nothing is needed: the first call that needs the other processes joins them"
_AVERAGES = (
    "average a tape's gradients with distribute.mean(gradients), or give the whole batch to "
    "distribute.gradients(loss_fn, batch)"
)
_OLD = "there is no TensorFlow 1 here: use the names of TensorFlow 2"
_WITHIN = "use the layers of tf.keras.layers itself"


def _of_peers(names: str) -> list[str]:
    return [f"distribute.{name}" for name in names.split()]


_INSTEAD = {
    "Graph": "there are no graphs: call functions",
    **dict.fromkeys(["app", "contrib", "flags", "get_variable", "layers", "log"], _OLD),
    "compat.v1": _OLD,
    **dict.fromkeys(
        ["compat.v1.disable_eager_execution", "compat.v1.disable_v2_behavior"],
        "there are no graphs: leave it out, as operations run when they are called",
    ),
    **dict.fromkeys(["global_variables_initializer", "logging", "variable_scope"], _OLD),
    "data.experimental.parallel_interleave": "use Dataset.interleave",
    "distribute.ParameterServerStrategy": _STRATEGY,
    "distribute.Server": "start the script with mpirun, or with distgrad launch",
    # Habits of Horovod, of torch.distributed and of Ray Train.
    **dict.fromkeys(
        _of_peers("DistributedGradientTape DistributedOptimizer DistributedDataParallel"),
        _AVERAGES,
    ),
    **dict.fromkeys(_of_peers("allreduce all_reduce reduce"), _AVERAGES),
    **dict.fromkeys(_of_peers("init init_process_group shutdown destroy_process_group"), _JOINS),
    **dict.fromkeys(_of_peers("size get_world_size"), "use distribute.world_size()"),
    **dict.fromkeys(_of_peers("get_rank"), "use distribute.rank()"),
    **dict.fromkeys(_of_peers("is_initialized"), "use distribute.world_size() > 1"),
    **dict.fromkeys(
        _of_peers("allgather all_gather gather all_gather_object gather_object"),
        "use distribute.allgather_object(value)",
    ),
    **dict.fromkeys(
        _of_peers("broadcast_variables broadcast_global_variables broadcast_parameters"),
        "use distribute.broadcast(model.variables)",
    ),
    **dict.fromkeys(
        _of_peers("local_rank get_local_rank local_size"),
        "each process takes the GPU of its number on the machine by itself",
    ),
    **dict.fromkeys(
        _of_peers("join Join"),
        "distribute.gradients(loss_fn, batch) takes batches that cannot be divided evenly",
    ),
    **dict.fromkeys(
        _of_peers("no_sync"),
        "add up the gradients of some batches, and call distribute.mean once; an optimizer does so "
        "by gradient_accumulation_steps",
    ),
    **dict.fromkeys(
        _of_peers("elastic report get_checkpoint save_checkpoint"),
        "save with tf.train.CheckpointManager, restore from it at the start, and let distgrad "
        "launch --max-restarts start lost workers again",
    ),
    **dict.fromkeys(_of_peers("callbacks"), "model.fit averages metrics and begins alike itself"),
    **dict.fromkeys(
        _of_peers("start_timeline stop_timeline"),
        "set DISTGRAD_TIMELINE=FILE, or call tf.profiler.experimental.start(folder) and stop()",
    ),
    **dict.fromkeys(_of_peers("broadcast_object_list"), "use distribute.broadcast_object(value)"),
    **dict.fromkeys(
        _of_peers("DistributedSampler"),
        "model.fit and distribute.gradients cut whole batches themselves; else take x[rank::size]",
    ),
    **dict.fromkeys(_of_peers("launch run spawn"), "use distgrad.launch(fn, args, workers=4)"),
    "estimator": "train a Keras model, or write a job (distgrad config init)",
    "experimental.BatchableExtensionType": "make tf.experimental.ExtensionType objects of what a "
    "dataset gives",
    **dict.fromkeys(
        [
            "experimental.dispatch_for_api",
            "experimental.dispatch_for_binary_elementwise_apis",
            "experimental.dispatch_for_unary_elementwise_apis",
        ],
        "define operators and methods in the class",
    ),
    "experimental.numpy.": "see keras.ops, which has more of NumPy's functions",
    "feature_column": "use Keras's preprocessing layers",
    "io.SparseFeature": "use tf.io.VarLenFeature, tf.io.RaggedFeature, or "
    "tf.io.FixedLenSequenceFeature([], dtype, allow_missing=True), which fills up the shorter ones "
    "of a batch",
    "keras.backend.function": "use tf.keras.Model(inputs, outputs)",
    "keras.backend.learning_phase": "give training=True, or False, to the call",
    "keras.backend.set_learning_phase": "give training=True, or False, to the call",
    "keras.distribution": "start the script with mpirun, or with distgrad launch: workers share "
    "each batch",
    "keras.layers.CuDNNGRU": "use GRU, which runs on GPUs as well",
    "keras.layers.CuDNNLSTM": "use LSTM, which runs on GPUs as well",
    "keras.layers.DenseFeatures": "use tf.keras.utils.FeatureSpace, or preprocessing layers",
    **{
        f"keras.layers.{name}": _WITHIN
        for name in ("advanced_activations", "convolutional", "embeddings", "merge", "noise")
    },
    "keras.utils.generic_utils": "use tf.keras.utils itself",
    "keras.utils.multi_gpu_model": _STRATEGY,
    "keras.utils.np_utils": "use tf.keras.utils itself",
    "keras.wrappers.scikit_learn": "use tf.keras.wrappers.SKLearnClassifier",
    **dict.fromkeys(
        ["keras.export", "keras.layers.TFSMLayer"],
        "use model.save('x.keras'), or model.export('x.onnx')",
    ),
    "keras.quantizers": "model.export(..., int8=True) writes an ONNX file of 8 bits",
    "linalg.LinearOperator": "use its matrix, or a function that multiplies by it",
    "linalg.experimental": "scipy.sparse.linalg.cg takes a function that multiplies by a matrix",
    "lite": "write an ONNX file with model.export, which phones run as well",
    "placeholder": "there are no graphs: give values to functions",
    **dict.fromkeys(
        ["quantization.dequantize", "quantization.experimental", "quantization.quantize"],
        "model.export(..., int8=True) writes an ONNX file of 8 bits",
    ),
    "random_normal": "use tf.random.normal",
    "random_uniform": "use tf.random.uniform",
    "ragged.": "to_tensor() makes dense tensors, which every operation takes, and "
    "tf.RaggedTensor.from_tensor ragged ones again",
    "raw_ops.": "use the operation's public name",
    "saved_model": "use model.save('x.keras'), model.export('x.onnx'), or tf.train.Checkpoint",
    "set_random_seed": "use tf.random.set_seed",
    "Session": "there are no graphs: call functions",
    "sparse.": "to_dense makes dense tensors, which every operation takes, and from_dense sparse "
    "ones again",
    "tpu": "distgrad runs on CPUs and CUDA GPUs",
}

_FAMILIES = (  # with many kinds
    *("compat.v1", "linalg.LinearOperator"),
    *("experimental.numpy.", "ragged.", "raw_ops.", "sparse."),
)


def message(name: str) -> str:
    """What an AttributeError for a name of ``distgrad``, or of a module in it, says."""
    module, _, own = f"distgrad.{name}".rpartition(".")
    family = next((each for each in _FAMILIES if name.startswith(each)), name)
    instead = _INSTEAD.get(name, _INSTEAD.get(family))
    return f"module {module!r} has no attribute {own!r}" + (f": {instead}" if instead else "")
