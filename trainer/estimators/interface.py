"""What scikit-learn asks of any estimator; its ``BaseEstimator`` would bring the same, but is not needed to run."""

from __future__ import annotations

import inspect
import sys
from typing import Any, ClassVar, Self

from mariana.errors import InvalidInputError


class Interface:
    """Parameters by name, tags, and how an estimator is written."""

    _estimator_type: ClassVar[str] = ""

    @classmethod
    def _names(cls) -> list[str]:
        return [name for name in inspect.signature(cls.__init__).parameters if name != "self"]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the arguments by name."""
        del deep
        return {name: getattr(self, name) for name in self._names()}

    def set_params(self, **params: Any) -> Self:
        """Change arguments.

        Raises:
            InvalidInputError: there is none of that name.
        """
        for name, value in params.items():
            if name not in self._names():
                raise InvalidInputError(
                    f"Invalid parameter {name!r} for estimator {type(self).__name__}; there are: {self._names()}"
                )
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        defaults = inspect.signature(type(self).__init__).parameters
        changed = (
            f"{name}={value!r}"
            for name, value in self.get_params().items()
            if repr(value) != repr(defaults[name].default)
        )
        return f"{type(self).__name__}({', '.join(changed)})"

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "committee_")

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import (  # noqa: PLC0415 - only scikit-learn calls this
            ClassifierTags,
            InputTags,
            RegressorTags,
            Tags,
            TargetTags,
        )

        classifies = self._estimator_type == "classifier"
        return Tags(
            estimator_type=self._estimator_type,
            target_tags=TargetTags(required=True, multi_output=True),
            transformer_tags=None,
            classifier_tags=ClassifierTags(multi_label=True) if classifies else None,
            regressor_tags=None if classifies else RegressorTags(),
            input_tags=InputTags(sparse=True, allow_nan=True, string=True, categorical=True),
        )

    def _check_fitted(self) -> None:
        """Raise scikit-learn's own error where that is loaded."""
        if self.__sklearn_is_fitted__():
            return
        message = f"This {type(self).__name__} instance is not fitted yet; call fit first"
        exceptions = sys.modules.get("sklearn.exceptions")
        raise InvalidInputError(message) if exceptions is None else exceptions.NotFittedError(message)
