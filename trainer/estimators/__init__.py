"""``DNNClassifier`` and ``DNNRegressor``: a table becomes a network, with the interface of scikit-learn.

They work without scikit-learn, and where it is, they take part in its pipelines, searches and checks. Names follow its
``MLPClassifier``; what that lacks has the name that it has in Keras.
"""

from .classifier import DNNClassifier
from .regressor import DNNRegressor

__all__ = ["DNNClassifier", "DNNRegressor"]
