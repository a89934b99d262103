"""GLUE's metrics, in points: 100 is best. Needs no Keras."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Array = Any


def accuracy(predictions: Array, labels: Array) -> float:
    """Share of predictions that are right.

    >>> accuracy([1, 0, 1, 1], [1, 1, 1, 1])
    75.0
    """
    return 100 * float(np.mean(np.asarray(predictions) == np.asarray(labels)))


def f1(predictions: Array, labels: Array) -> float:
    """Harmonic mean of precision and recall of class 1; 0 if it is neither predicted nor right anywhere.

    >>> f1([1, 0, 1, 1], [1, 1, 0, 1])  # 2 found of 3, 2 right of 3
    66.666...
    """
    predicted, right = np.asarray(predictions) == 1, np.asarray(labels) == 1
    either = np.sum(predicted) + np.sum(right)
    return 200 * float(np.sum(predicted & right) / either) if either else 0.0


def matthews(predictions: Array, labels: Array) -> float:
    """Matthews correlation of any number of classes; 0 where predictions or labels are all the same.

    Source: Matthews 1975 for two classes; Gorodkin 2004, doi:10.1016/j.compbiolchem.2004.09.006, for more.

    >>> round(matthews([1, 1, 1, 0], [1, 1, 0, 0]), 2)
    57.74
    """
    predictions, labels = np.asarray(predictions), np.asarray(labels)
    classes = np.union1d(predictions, labels)
    predicted, right = (np.equal.outer(values, classes).astype("float64") for values in (predictions, labels))
    predicted, right = (x - x.mean(axis=0) for x in (predicted, right))  # [examples, classes]
    size = np.sqrt(np.sum(predicted**2) * np.sum(right**2))
    return 100 * float(np.sum(predicted * right) / size) if size else 0.0


def pearson(predictions: Array, labels: Array) -> float:
    """Linear correlation; 0 where predictions or labels are all the same.

    >>> round(pearson([1.0, 2.0, 3.0], [2.0, 4.0, 6.0]), 6)
    100.0
    """
    x, y = (np.asarray(values, "float64") - np.mean(values, dtype="float64") for values in (predictions, labels))
    size = np.linalg.norm(x) * np.linalg.norm(y)
    return float(np.clip(100 * np.sum(x * y) / size, -100, 100)) if size else 0.0


def spearman(predictions: Array, labels: Array) -> float:
    """Correlation of ranks, equal values having the mean of theirs; 0 where all are the same.

    >>> round(spearman([1.0, 20.0, 300.0], [0.1, 0.2, 0.5]), 6)
    100.0
    """
    from scipy.stats import rankdata

    return pearson(rankdata(predictions), rankdata(labels))


METRICS: Mapping[str, Callable[[Array, Array], float]] = {
    "accuracy": accuracy,
    "f1": f1,
    "matthews": matthews,
    "pearson": pearson,
    "spearman": spearman,
}
