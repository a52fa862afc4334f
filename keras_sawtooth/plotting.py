"""Pictures of learned functions. matplotlib is imported when they are drawn."""

import numpy as np

from keras_sawtooth.regions import linear_regions
from keras_sawtooth.regions import region_constraint_of
from keras_sawtooth.sawtooth_dense import SawtoothDense


def plot_regions(layer, channels=None, axes=None, interval=None):
    """Draw the functions of some channels, with their breakpoints.

    Every function is drawn against its own input: in a `SawtoothDense` that is the
    pre-activation of the unit, and not an input of the model.

    Args:
        layer: a built `RegionConstraint` or `SawtoothDense`.
        channels: int or list of int. Defaults to the first four.
        axes: matplotlib axes, one per channel. Defaults to a new figure.
        interval: pair of floats `(low, high)`, see `linear_regions`. Defaults to the
            domain of the layer.

    Returns:
        The list of axes. In a script, `matplotlib.pyplot.show()` shows them, and
        `axes[0].figure.savefig("units.png")` saves them.

    Raises:
        ImportError: if matplotlib is missing.
        TypeError: if `layer` is neither of these layers, or `axes` are no axes.
        ValueError: if the layer is not built, there are no channels, or not as many as
            axes, a channel does not exist, a weight is not finite, or `interval` is
            not two finite increasing numbers.

    Example:

        >>> layer = RegionConstraint(depth=3)
        >>> layer.build((None, 4))
        >>> len(plot_regions(layer, channels=[0, 2]))
        2
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            "`plot_regions` needs matplotlib: pip install 'keras-sawtooth[plot]'"
        ) from error

    if channels is None:
        channels = range(min(4, region_constraint_of(layer).channels))
    channels = np.ravel(channels).tolist()
    if not channels:
        raise ValueError(f"Name a channel to draw. Received: channels={channels}")
    input_name = "pre-activation" if isinstance(layer, SawtoothDense) else "input"
    # Before a figure is opened: this may fail.
    regions = [linear_regions(layer, channel, interval) for channel in channels]
    if axes is None:
        _, axes = plt.subplots(
            1,
            len(channels),
            figsize=(3 * len(channels), 2.6),
            squeeze=False,
            layout="constrained",
        )
    axes = np.ravel(axes).tolist()
    if not all(hasattr(axis, "plot") for axis in axes):
        raise TypeError(f"`axes` must be axes of matplotlib. Received: axes={axes}")
    if len(axes) != len(channels):
        raise ValueError(
            "Give one of `axes` for every one of `channels`. Received: "
            f"{len(axes)} axes, channels={channels}"
        )
    for axis, channel, pieces in zip(axes, channels, regions, strict=True):
        draw_regions(axis, pieces)
        axis.set_title(f"channel {channel}", fontsize="medium")
        axis.set_xlabel(input_name)
    return axes


def draw_regions(axis, regions, **style):
    """Draw one `LinearRegions` with its breakpoints on a matplotlib axis."""
    z = regions.breakpoints
    lines = axis.plot(z, regions(z), "o-", markersize=3, linewidth=1.2, **style)
    axis.grid(alpha=0.3)
    return lines
