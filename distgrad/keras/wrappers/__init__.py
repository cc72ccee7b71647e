"""Models as estimators of scikit-learn. Raises MissingExtraError without that package."""

from distgrad.core.later import later

_LATER = dict.fromkeys(
    ("SKLearnClassifier", "SKLearnRegressor", "SKLearnTransformer"), ".estimators"
)
__all__ = [*_LATER]

__getattr__, __dir__ = later(__name__, globals(), _LATER)
