"""Distillation: the losses between teacher and student, and the model that trains by them."""

import numpy as np
import pytest

import distgrad as tf

keras = tf.keras
layers, losses = keras.layers, keras.losses
distillation = keras.distillation
Distiller = distillation.Distiller

RNG = np.random.default_rng(0)
TAUGHT = RNG.normal(size=(4, 3)).astype(np.float32)
LEARNT = RNG.normal(size=(4, 3)).astype(np.float32)
X = RNG.normal(size=(16, 4)).astype(np.float32)
Y = RNG.integers(0, 3, 16)


def model(name, units, **inputs):
    given = keras.Input((4,), **inputs)
    inner = layers.Dense(units, activation="tanh", name="inner")(given)
    return keras.Model(given, layers.Dense(3, name="outer")(inner), name=name)


def softmax(x):
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


@pytest.mark.parametrize("loss", ["kl_divergence", losses.KLDivergence()])
def test_the_divergence_of_softened_logits(loss):
    found = distillation.LogitsDistillation(2.0, loss).compute_loss(TAUGHT, LEARNT)
    p, q = softmax(TAUGHT / 2), softmax(LEARNT / 2)
    np.testing.assert_allclose(found, 4 * (p * np.log(p / q)).sum(-1).mean(), rtol=1e-5)


def test_other_losses_take_the_logits_and_none_leaves_an_output_out():
    kind = distillation.LogitsDistillation(2.0, ["mse", None])
    found = kind.compute_loss([TAUGHT, TAUGHT], [LEARNT, LEARNT])
    np.testing.assert_allclose(found, ((TAUGHT - LEARNT) ** 2 / 4).mean(), rtol=1e-5)
    features = distillation.FeatureDistillation("mae")
    found = features.compute_loss(TAUGHT, LEARNT)
    np.testing.assert_allclose(found, np.abs(TAUGHT - LEARNT).mean(), rtol=1e-5)


def test_the_loss_is_the_weighted_sum_of_both():
    teacher, student = model("teacher", 5), model("student", 5)
    kinds = [
        distillation.LogitsDistillation(1.0, "mse"),
        distillation.FeatureDistillation("mse", "inner", "inner"),
    ]
    distiller = Distiller(teacher, student, kinds, [1.0, 0.5], student_loss_weight=0.3)
    distiller.compile("sgd", losses.SparseCategoricalCrossentropy(from_logits=True))
    own = losses.SparseCategoricalCrossentropy(from_logits=True)(Y, student(X)).numpy()
    apart = np.square(teacher(X).numpy() - student(X).numpy()).mean()
    inner = [m.get_layer("inner")(X).numpy() for m in (teacher, student)]
    expected = 0.3 * own + 0.7 * (apart + 0.5 * np.square(inner[0] - inner[1]).mean())
    np.testing.assert_allclose(distiller.compute_loss(X, Y), expected, rtol=1e-5)
    named = distiller.evaluate(X, Y, verbose=0, return_dict=True)
    np.testing.assert_allclose(named["total_loss"], expected, rtol=1e-5)
    np.testing.assert_allclose(named["student_loss"], own, rtol=1e-5)


def test_fit_brings_the_student_to_the_teacher_who_stays():
    teacher, student = model("teacher", 8), model("student", 4)
    distiller = Distiller(
        teacher, student, distillation.LogitsDistillation(), student_loss_weight=0.0
    )
    distiller.compile(keras.optimizers.Adam(0.05), "mse", metrics=["accuracy"])
    before = [w.copy() for w in teacher.get_weights()]
    logs = distiller.fit(X, Y, batch_size=8, epochs=5, verbose=0).history
    assert logs["distillation_loss"][-1] < 0.8 * logs["distillation_loss"][0]
    assert set(logs) == {"accuracy", "distillation_loss", "loss", "student_loss", "total_loss"}
    for now, then in zip(teacher.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)
    assert len(distiller.trainable_variables) == 4 and not teacher.trainable
    np.testing.assert_array_equal(distiller.predict(X, verbose=0), student.predict(X, verbose=0))


def test_a_saved_distiller_goes_on(tmp_path):
    pytest.importorskip("h5py")
    kinds = [
        distillation.LogitsDistillation(),
        distillation.FeatureDistillation(losses.MeanSquaredError(), "inner", "inner"),
    ]
    distiller = Distiller(model("teacher", 5), model("student", 5), kinds, student_loss_weight=0.2)
    distiller.compile("sgd", losses.SparseCategoricalCrossentropy(from_logits=True))
    distiller.save(tmp_path / "d.keras")
    again = keras.models.load_model(tmp_path / "d.keras")
    np.testing.assert_allclose(again(X), distiller(X), rtol=1e-6)
    np.testing.assert_allclose(again.teacher(X), distiller.teacher(X), rtol=1e-6)
    np.testing.assert_allclose(again.compute_loss(X, Y), distiller.compute_loss(X, Y), rtol=1e-5)


LOGITS = distillation.LogitsDistillation()


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: distillation.LogitsDistillation(0.0), "temperature"),
        (lambda: distillation.FeatureDistillation([None]), "not None"),
        (lambda: Distiller("a", model("s", 2), LOGITS), "Teacher must be"),
        (lambda: Distiller(model("t", 2), model("s", 2), None), "distillation_losses"),
        (lambda: Distiller(model("t", 2), model("s", 2), [LOGITS], [1, 2]), "must match"),
        (lambda: Distiller(model("t", 2), model("s", 2), LOGITS, None, 1.5), "between 0.0 and 1.0"),
        (
            lambda: Distiller(
                model("t", 2), model("s", 2), distillation.FeatureDistillation("mse", "no", "inner")
            ),
            "In teacher model",
        ),
        (lambda: Distiller(model("t", 2), keras.Sequential([keras.Input((3,))]), LOGITS), "shapes"),
        (lambda: Distiller(model("t", 2), model("s", 2, dtype="float64"), LOGITS), "dtypes"),
        (lambda: Distiller(model("t", 2), model("s", 2), LOGITS).compile("sgd"), "'loss' cannot"),
    ],
)
def test_errors(make, words):
    with pytest.raises(ValueError, match=words):
        make()
