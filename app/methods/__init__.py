"""The algorithms. They know torch, numpy, scipy, scikit-learn and pydantic, and nothing of the service."""

from __future__ import annotations

from typing import Any

from app.methods.base import Method
from app.methods.incremental import (
    analytic,
    fetril,
    lda,
    naive_bayes,
    ncm,
    ridge_regression,
    supervised,
    teen,
)

ALL: tuple[Method[Any], ...] = (
    supervised.METHOD,
    fetril.METHOD,
    ncm.METHOD,
    analytic.METHOD,
    lda.METHOD,
    naive_bayes.METHOD,
    teen.METHOD,
    ridge_regression.METHOD,
)

BY_NAME = {method.name: method for method in ALL}
