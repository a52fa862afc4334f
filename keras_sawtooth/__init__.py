"""Learnable piecewise-linear layers with exponentially many pieces for Keras 3."""

from keras_sawtooth.initializers import RandomSign as RandomSign
from keras_sawtooth.region_constraint import RegionConstraint as RegionConstraint
from keras_sawtooth.regions import LinearRegions as LinearRegions
from keras_sawtooth.regions import count_linear_regions as count_linear_regions
from keras_sawtooth.regions import linear_regions as linear_regions
from keras_sawtooth.plotting import plot_regions as plot_regions
from keras_sawtooth.release import ReleaseConstraints as ReleaseConstraints
from keras_sawtooth.release import release as release
from keras_sawtooth.sawtooth_dense import SawtoothDense as SawtoothDense

__version__ = "0.1.0"
