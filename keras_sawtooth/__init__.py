"""Learnable piecewise-linear layers with exponentially many pieces for Keras 3."""

from keras_sawtooth.distribution import layout_map
from keras_sawtooth.initializers import RandomPeaks
from keras_sawtooth.initializers import RandomSign
from keras_sawtooth.pieces import LinearRegions
from keras_sawtooth.plotting import plot_regions
from keras_sawtooth.preset_io.handles import built_in_presets
from keras_sawtooth.preset_io.loading import from_preset
from keras_sawtooth.preset_io.saving import save_to_preset
from keras_sawtooth.region_constraint import RegionConstraint
from keras_sawtooth.regions import count_linear_regions
from keras_sawtooth.regions import linear_regions
from keras_sawtooth.saving.weights import load_weights
from keras_sawtooth.sawtooth_dense import SawtoothDense
from keras_sawtooth.standard_layers import to_standard_layers
from keras_sawtooth.swap.replace_dense import replace_dense
from keras_sawtooth.training.backup_and_restore import BackupAndRestore
from keras_sawtooth.training.release_constraints import ReleaseConstraints
from keras_sawtooth.training.release_model import release
from keras_sawtooth.version import __version__ as __version__

__all__ = [
    "BackupAndRestore",
    "LinearRegions",
    "RandomPeaks",
    "RandomSign",
    "RegionConstraint",
    "ReleaseConstraints",
    "SawtoothDense",
    "count_linear_regions",
    "from_preset",
    "layout_map",
    "linear_regions",
    "load_weights",
    "plot_regions",
    "presets",
    "release",
    "replace_dense",
    "save_to_preset",
    "to_standard_layers",
]

# What is known of the built-in presets, by name: plain data.
presets = built_in_presets()
