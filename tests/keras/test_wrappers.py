"""Models as estimators of scikit-learn."""

import numpy as np
import pytest

import distgrad as tf

NotFittedError = pytest.importorskip("sklearn.exceptions").NotFittedError

keras = tf.keras
wrappers = keras.wrappers

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3))
Y = 2 * X[:, 0] + 1
LABELS = np.array(["low", "high"])[(X[:, 0] > 0).astype(int)]


def made(X, y, loss="mse", activation=None):
    outer = keras.layers.Dense(y.shape[1], activation=activation)
    model = keras.Sequential([keras.Input((X.shape[1],)), outer])
    model.compile(keras.optimizers.Adam(0.1), loss)
    return model


def regressor(**more):
    return wrappers.SKLearnRegressor(made, fit_kwargs={"epochs": 30, "verbose": 0}, **more)


def test_a_regressor_learns_a_line():
    estimator = regressor().fit(X, Y)
    assert estimator.predict(X).shape == (40,) and estimator.score(X, Y) > 0.9
    assert estimator.n_features_in_ == 3 and len(estimator.history_.history["loss"]) == 30
    both = regressor().fit(X, np.stack([Y, -Y], 1)).predict(X)
    assert both.shape == (40, 2)


def test_a_classifier_answers_with_labels():
    options = {"loss": "categorical_crossentropy", "activation": "softmax"}
    estimator = wrappers.SKLearnClassifier(made, model_kwargs=options)
    estimator.fit(X, LABELS, epochs=30, verbose=0)
    assert estimator.classes_.tolist() == ["high", "low"]
    assert estimator.score(X, LABELS) > 0.9
    scores = estimator.decision_function(X)
    np.testing.assert_allclose(scores.sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(estimator.predict(X), estimator.classes_[scores.argmax(1)])


def test_a_transformer_gives_the_outputs():
    estimator = wrappers.SKLearnTransformer(made, fit_kwargs={"verbose": 0}).fit(X, Y)
    np.testing.assert_array_equal(estimator.transform(X), estimator.model_.predict(X, verbose=0))


def test_a_model_is_copied_unless_it_starts_warm():
    model = made(X, Y[:, None])
    before = [w.copy() for w in model.get_weights()]
    estimator = wrappers.SKLearnRegressor(model, fit_kwargs={"verbose": 0}).fit(X, Y)
    assert estimator.model_ is not model
    np.testing.assert_array_equal(model.get_weights()[0], before[0])
    warm = wrappers.SKLearnRegressor(model, warm_start=True, fit_kwargs={"verbose": 0})
    first = warm.fit(X, Y).model_
    assert first is model and warm.fit(X, Y).model_ is model


def test_in_the_tools_of_scikit_learn():
    from sklearn.base import clone
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    again = clone(regressor(model_kwargs={"loss": "mae"}))
    assert again.model_kwargs == {"loss": "mae"} and again.fit_kwargs["epochs"] == 30
    pipe = make_pipeline(StandardScaler(), regressor())
    assert cross_val_score(pipe, X, Y, cv=2).shape == (2,)


def test_errors():
    unfitted = wrappers.SKLearnClassifier(made)
    with pytest.raises(NotFittedError):
        unfitted.predict(X)
    with pytest.raises(ValueError, match="Unknown label type"):
        unfitted.fit(X, np.array([object()] * 40))
    with pytest.raises(RuntimeError, match="compiled"):
        bare = lambda X, y: keras.Sequential([keras.layers.Dense(1)])  # noqa: E731
        wrappers.SKLearnRegressor(bare).fit(X, Y)
    with pytest.raises(ValueError, match="one class"):
        wrappers.SKLearnClassifier(made).fit(X, np.zeros(40, int))
    with pytest.raises(ValueError, match="binary and multiclass"):
        wrappers.SKLearnClassifier(made).fit(X, Y)
    with pytest.raises(ValueError, match="not fitted"):
        regressor().predict(X)
