"""Estimators of scikit-learn around models, for its pipelines, searches and validations."""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.core.errors import MissingExtraError
from distgrad.keras.models import Model
from distgrad.keras.models.cloning import clone_model

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, TransformerMixin
    from sklearn.utils.multiclass import type_of_target
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError:
    raise MissingExtraError(
        "keras.wrappers needs scikit-learn 1.6 or later: pip install scikit-learn"
    ) from None


class _Estimator(BaseEstimator):
    """What the estimators share: they make a model, train it on arrays, and ask it to predict.

    ``model`` is a compiled model, of which fit trains a copy (with ``warm_start`` itself), or a
    function of ``X``, ``y`` and ``model_kwargs`` that gives one. ``fit_kwargs`` are for
    ``model.fit``, as the keywords of ``fit`` are. A fitted estimator has ``model_``, and
    ``history_``, what ``model.fit`` gave.
    """

    def __init__(
        self,
        model: Any,
        warm_start: bool = False,
        model_kwargs: dict[str, Any] | None = None,
        fit_kwargs: dict[str, Any] | None = None,
    ) -> None:
        self.model = model
        self.warm_start = warm_start
        self.model_kwargs = model_kwargs
        self.fit_kwargs = fit_kwargs

    def __sklearn_clone__(self) -> Any:
        settings = self.get_params(deep=False)
        if isinstance(self.model, Model):
            settings["model"] = clone_model(self.model)
        return type(self)(**settings)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.non_deterministic = True
        return tags

    def fit(self, X: Any, y: Any, **kwargs: Any) -> Any:
        """Trains the model; the keywords are for ``model.fit``.

        Raises RuntimeError for a model that is not compiled with a loss, ValueError for arrays that
        scikit-learn does not take.
        """
        shape = np.asarray(y).shape
        many = len(shape) == 2 and shape[1] > 1
        X, y = validate_data(self, X, y, multi_output=many)
        targets = self._targets(y)
        model = self._made(X, targets)
        if model.optimizer is None or not model.loss:
            raise RuntimeError(
                "Given model needs to be compiled, and have a loss and an optimizer."
            )
        self.history_ = model.fit(X, targets, **{**(self.fit_kwargs or {}), **kwargs})
        self.model_ = model
        return self

    def _made(self, X: np.ndarray, y: np.ndarray) -> Model:
        if not self.warm_start:
            if isinstance(self.model, Model):
                return clone_model(self.model)
        elif hasattr(self, "model_"):
            return self.model_
        elif isinstance(self.model, Model):
            return self.model
        return self.model(X=X, y=y, **(self.model_kwargs or {}))

    def _targets(self, y: np.ndarray) -> np.ndarray:
        """Targets as the model is given them."""
        type_of_target(y, raise_unknown=True)
        self._flat = y.ndim == 1
        return y.reshape(-1, 1) if self._flat else y

    def _outputs(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        return self.model_.predict(validate_data(self, X, reset=False))

    def predict(self, X: Any) -> np.ndarray:
        """What the model says of samples. Raises NotFittedError before ``fit``."""
        found = self._outputs(X)
        return found[:, 0] if self._flat and found.shape[1:] == (1,) else found


class SKLearnClassifier(ClassifierMixin, _Estimator):
    """A model as a classifier: it is given the classes one-hot, and answers with their labels.

    A fitted one has ``classes_``. Raises ValueError for targets that are no classes, or one alone.
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.poor_score = True
        return tags

    def _targets(self, y: np.ndarray) -> np.ndarray:
        kind = type_of_target(y, raise_unknown=True)
        if kind not in ("binary", "multiclass"):
            raise ValueError(
                f"Only binary and multiclass target types are supported. Target type: {kind}"
            )
        self.classes_, numbers = np.unique(y, return_inverse=True)
        if len(self.classes_) == 1:
            raise ValueError("Classifier can't train when only one class is present.")
        return np.eye(len(self.classes_))[numbers]

    def decision_function(self, X: Any) -> np.ndarray:
        """The outputs of the model as they are."""
        return self._outputs(X)

    def predict(self, X: Any) -> np.ndarray:
        """The label of the likeliest class of each sample. Raises NotFittedError before ``fit``."""
        likeliest = self._outputs(X).argmax(-1)
        return self.classes_[likeliest]


class SKLearnRegressor(RegressorMixin, _Estimator):
    """A model as a regressor."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.regressor_tags.poor_score = True
        return tags


class SKLearnTransformer(TransformerMixin, _Estimator):
    """A model as a step that makes features: its outputs."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        return tags

    def transform(self, X: Any) -> np.ndarray:
        """The outputs of the model for samples."""
        return self._outputs(X)
