"""What Keras would compute or allocate while it reads a config."""

import math

# Elements of an array that no weights justify.
MAX_ELEMENTS = 2**20


def check_allocation(value):
    """Refuse a part of a config by which Keras takes memory before any check of sizes.

    Args:
        value: dict, any part of a config.

    Raises:
        ValueError: if it is a recurrent layer with a state, a layer that is called on
            constants, or a `Normalization` that spreads a few numbers over a large
            input.
    """
    config = value.get("config")
    # Keras, too, takes 1 for True.
    if isinstance(config, dict) and config.get("stateful"):
        raise ValueError(
            "Its config asks for a stateful recurrent layer, whose state is of a size "
            "that no file bounds."
        )
    if "inbound_nodes" in value:
        _check_nodes(value["inbound_nodes"])
    names = (value.get("class_name"), value.get("registered_name"))
    if "Normalization" in names and isinstance(config, dict):
        _check_normalization(value)


def _check_nodes(nodes):
    """On symbolic tensors, layers compute shapes only, whatever else they are given."""
    nodes = nodes if isinstance(nodes, list) else [nodes]
    for node in nodes:
        # Older versions of Keras wrote a list of names of layers.
        legacy = isinstance(node, list) and node
        if not legacy and not _holds_symbolic(node):
            raise ValueError(
                "Its config calls a layer on constants, without an output of another "
                "layer."
            )


def _holds_symbolic(node):
    """Whether Keras finds a symbolic tensor there, as it unpacks lists and dicts."""
    arguments = []
    if isinstance(node, dict):
        # A dict of positional arguments would be unpacked to its keys.
        args, kwargs = node.get("args"), node.get("kwargs")
        arguments += args if isinstance(args, list) else []
        arguments += kwargs.values() if isinstance(kwargs, dict) else []
    while arguments:
        value = arguments.pop()
        if isinstance(value, list):
            arguments += value
        elif isinstance(value, dict):
            if "class_name" not in value or "config" not in value:
                arguments += value.values()
            elif value["class_name"] == "__keras_tensor__":
                return True
    return False


def _check_normalization(value):
    """Statistics that were given, not adapted, take the shape of the input at once."""
    config, build = value["config"], value.get("build_config")
    if config.get("mean") is None and config.get("variance") is None:
        return
    axis = config.get("axis", -1)
    axis = () if axis is None else (axis,) if isinstance(axis, int) else axis
    try:
        # Keras builds the layer from this, and from nothing else if it is there.
        kept = [build["input_shape"][d] for d in axis]
        known = bool(value.get("module")) and all(type(d) is int for d in kept)
        fits = known and math.prod(map(abs, kept)) <= MAX_ELEMENTS
    except (IndexError, KeyError, TypeError):
        fits = False
    if not fits:
        raise ValueError(
            "Its config asks for a `Normalization` with a given mean and variance, "
            "whose 'build_config' is not a shape of at most "
            f"{MAX_ELEMENTS:,} features: {build!r}."
        )
