"""Run by `tox -e package` where the wheel is installed, outside the checkout."""

from importlib import metadata

import jax
import keras
import numpy as np

import keras_sawtooth as ks

required = [r for r in metadata.requires("keras-sawtooth") if "extra ==" not in r]
names = sorted(r.split(">")[0] for r in required)
assert names == ["keras", "numpy"], names
assert "site-packages" in ks.__file__, ks.__file__
assert metadata.version("keras-sawtooth") == ks.__version__
# Large enough for derivatives in blocks.
layer = ks.SawtoothDense(512)
assert layer(np.zeros((2, 3))).shape == (2, 512)
assert list(ks.count_linear_regions(layer)) == [8] * 512
assert len(ks.presets) == 8, ks.presets
for name in ks.presets:
    ks.from_preset(name)
assert abs(ks.from_preset("sawtooth_square")(np.ones((1, 1)))[0, 0] - 1) < 1e-4
model = keras.Sequential([keras.Input((3,)), layer, keras.layers.Dense(1)])
model.compile("adam", "mse")
callbacks = [ks.ReleaseConstraints(epoch=1)]
x, y = np.random.default_rng(0).normal(size=(512, 3)), np.ones(512)
model.fit(x, y, batch_size=512, epochs=2, callbacks=callbacks, verbose=0)
assert not layer.constrained
assert np.isfinite(model.evaluate(x, y, verbose=0))
print(
    f"keras-sawtooth {ks.__version__} works from its wheel with Keras "
    f"{keras.__version__} and JAX {jax.__version__}; requires {required}"
)
