import keras
import numpy as np
import pytest
from hypothesis import HealthCheck
from hypothesis import settings

import keras_sawtooth as ks

# The fixtures below are the same for every example, and compiling takes long.
settings.register_profile(
    "tests",
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("tests")


@pytest.fixture(autouse=True)
def _fixed_seed():
    keras.utils.set_random_seed(0)


@pytest.fixture(autouse=True)
def _doctest_names(doctest_namespace):
    names = {name: getattr(ks, name) for name in ks.__all__}
    doctest_namespace.update(names, ks=ks, keras=keras, np=np)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")
