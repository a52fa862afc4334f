"""Models for KerasHub: a backbone of sawtooth layers, and tasks on top of it."""

try:
    import keras_hub as _keras_hub  # noqa: F401
except ImportError as error:
    raise ImportError(
        "`keras_sawtooth.hub` needs the package `keras-hub`: "
        "pip install 'keras-sawtooth[hub]'"
    ) from error

from keras_sawtooth.hub.backbone import SawtoothBackbone
from keras_sawtooth.hub.tasks import SawtoothClassifier
from keras_sawtooth.hub.tasks import SawtoothRegressor

__all__ = ["SawtoothBackbone", "SawtoothClassifier", "SawtoothRegressor"]
