"""Layouts of the variables for `keras.distribution.ModelParallel`."""

import keras

from keras_sawtooth.arguments import check_choice
from keras_sawtooth.variable_shapes import variable_shapes

# Number of axes, the last of which are the channels.
DENSE_RANKS = {"kernel": 2, "bias": 1, "lora_kernel_b": 2}


def layout_map(
    device_mesh, axis="model", scales="tied", dense=r"sawtooth_dense(_\d+)?"
):
    """Layouts that split the layers of a model by their channels.

    Maps every variable of `RegionConstraint` and `SawtoothDense`, in both phases,
    to a layout whose last axis, the channels, is split over an axis of the mesh.
    The slots of an optimizer follow their variables. All other variables are
    replicated; add entries of your own for them.

    Args:
        device_mesh: `keras.distribution.DeviceMesh`.
        axis: str. Name of the axis of the mesh over which the channels are split.
            Their number must be divisible by the size of that axis.
        scales: `"tied"` or `"free"`, as in the layers. In a model with both, add
            the full paths of the other `amplitude` variables: a full path goes
            before a pattern.
        dense: str. Regular expression for the names of the `SawtoothDense`
            layers, whose `kernel` and `bias` do not tell them from other layers.

    Returns:
        `keras.distribution.LayoutMap`.

    Raises:
        TypeError: if `device_mesh` is not a `DeviceMesh`.
        ValueError: if `scales` is neither, or the mesh has no such axis.

    Example:

        >>> mesh = keras.distribution.DeviceMesh((1, 1), ("batch", "model"), ["cpu:0"])
        >>> layouts = layout_map(mesh)
        >>> layouts["sequential/sawtooth_dense/kernel"].axes
        (None, 'model')
        >>> layouts["sequential/region_constraint/slope"].axes
        ('model',)

    Reference:
        - [Keras guide](https://keras.io/guides/distribution/), "ModelParallel and
          LayoutMap".
    """
    if not isinstance(device_mesh, keras.distribution.DeviceMesh):
        raise TypeError(
            "`device_mesh` must be a `keras.distribution.DeviceMesh`. "
            f"Received: device_mesh={device_mesh!r}"
        )
    scales = check_choice("scales", scales, ("tied", "free"))
    if axis not in device_mesh.axis_names:
        raise ValueError(
            f"`axis` must be one of the axes {tuple(device_mesh.axis_names)} of the "
            f"mesh. Received: axis={axis!r}"
        )
    ranks = {f"({dense})/{name}": rank for name, rank in DENSE_RANKS.items()}
    for constrained in (True, False):
        shapes = variable_shapes(constrained, depth=2, channels=1, scales=scales)
        ranks |= {name: len(shape) for name, shape in shapes.items()}
    layouts = keras.distribution.LayoutMap(device_mesh)
    for path, rank in ranks.items():
        # With both anchors, as older versions of Keras search for the pattern.
        layouts[f"^(.*/)?{path}$"] = (None,) * (rank - 1) + (axis,)
    return layouts
