"""A scikit-learn classifier as a version of a model, and the same answers from both.

palimpsest serve &
python -m examples.import_sklearn
"""

from __future__ import annotations

import httpx
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from examples.heads import ask, bring_in, local

EXPONENT = 0  # the pixels of these digits are whole numbers from 0 to 16


def run(http: httpx.Client) -> float:
    """The share of test rows on which service and scikit-learn agree."""
    x, y = load_digits(return_X_y=True)
    x_train, x_test, y_train, _ = train_test_split(x, y, random_state=0)
    classifier = LogisticRegression(C=0.01, max_iter=1_000).fit(x_train, y_train)

    weight, bias = classifier.coef_, classifier.intercept_
    if len(weight) == 1:  # two classes have one row: the other's score is its opposite
        weight, bias = np.concatenate([-weight, weight]), np.concatenate([-bias, bias])
    version = bring_in(http, weight, bias, [str(label) for label in classifier.classes_], EXPONENT)

    expected = [str(label) for label in classifier.predict(x_test)]
    return float(np.mean([a == b for a, b in zip(ask(http, version, x_test), expected, strict=True)]))


if __name__ == "__main__":
    with local() as http:
        print(f"service and scikit-learn agree on {run(http):.1%} of the test rows")
