"""Names and shapes of the variables of a `RegionConstraint`."""

# Of both phases; those that a layer does not have now are `None`.
VARIABLES = (
    "peak_logits",
    "amplitude",
    "tail_slopes",
    "slope",
    "relu_input_kernel",
    "relu_input_bias",
    "relu_kernel",
    "relu_bias",
    "relu_output_kernel",
    "relu_tail_slopes",
)


def variable_shapes(constrained, depth, channels, scales="tied", tails="free"):
    """Shapes of the variables in a phase.

    Args:
        constrained: bool. The phase.
        depth: int. Number of triangles.
        channels: int.
        scales: `"tied"` or `"free"`.
        tails: `"free"` or `"line"`.

    Returns:
        Dict of names and shapes, in the order of `weights`.

    Example:

        >>> variable_shapes(True, depth=3, channels=8)["peak_logits"]
        (4, 8)
    """
    if constrained:
        shapes = {
            "peak_logits": (depth + 1, channels),
            "amplitude": (channels,) if scales == "tied" else (depth, channels),
            "tail_slopes": (2, channels),
            "slope": (channels,),
        }
    else:
        shapes = {
            "slope": (channels,),
            **relu_shapes(depth, channels),
            "relu_tail_slopes": (2, channels),
        }
    if tails == "line":
        shapes = {name: shape for name, shape in shapes.items() if "tail" not in name}
    # Keras has no variables without elements, as depth 1 would need.
    return {name: shape for name, shape in shapes.items() if shape[0] > 0}


def relu_shapes(depth, channels):
    """Shapes of the weights of the ReLU network, also of those without elements."""
    return {
        "relu_input_kernel": (4, channels),
        "relu_input_bias": (4, channels),
        "relu_kernel": (depth - 1, 4, 4, channels),
        "relu_bias": (depth - 1, 4, channels),
        "relu_output_kernel": (4, channels),
    }
