"""Models inside of scikit-learn's tools, through Keras' wrappers."""

import pickle

import keras
import numpy as np
import pytest
from models import compiled
from models import data

import keras_sawtooth as ks

pytest.importorskip("sklearn")


def build(X, y, depth):  # noqa: N803, the name that Keras gives it
    inputs = keras.Input(X.shape[1:])
    hidden = ks.SawtoothDense(4, depth)(inputs)
    return compiled(keras.Model(inputs, keras.layers.Dense(1)(hidden)))


def regressor():
    return keras.wrappers.SKLearnRegressor(
        build,
        model_kwargs={"depth": 2},
        fit_kwargs={
            "epochs": 2,
            "verbose": 0,
            "callbacks": [ks.ReleaseConstraints(epoch=1)],
        },
    )


def test_every_fit_of_an_estimator_releases():
    x, y = data()
    estimator = regressor()
    for _ in range(2):
        estimator.fit(x, y[:, 0])
        assert not estimator.model_.layers[1].constrained


def test_cross_validation():
    from sklearn.model_selection import cross_val_score

    x, y = data()
    scores = cross_val_score(regressor(), x, y[:, 0], cv=2, error_score="raise")
    assert np.isfinite(scores).all()


def test_a_fitted_estimator_is_pickled():
    x, y = data()
    estimator = regressor().fit(x, y[:, 0])
    copy = pickle.loads(pickle.dumps(estimator))
    np.testing.assert_array_equal(copy.predict(x), estimator.predict(x))
