"""The graphs of Sequential and functional models."""

import keras


def is_graph(layer):
    """Whether a layer is a Sequential or functional model."""
    # Keras exports no class for functional models.
    return isinstance(layer, keras.Sequential) or (
        isinstance(layer, keras.Model) and hasattr(layer, "operations")
    )


def has_graph(layer):
    """Whether a layer is a Sequential or functional model with a graph."""
    # Keras knows none of a Sequential model with a layer that it cannot see through.
    return is_graph(layer) and hasattr(layer, "outputs")


def calls_behind(tensors, passes_on):
    """The calls that symbolic tensors come from, through those that pass tensors on.

    Args:
        tensors: nested structure of symbolic tensors.
        passes_on: function of an operation and the tensors that it read, that returns
            whether to look behind this call as well.

    Yields:
        Every call once: the operation, the tensors that it read, and what `passes_on`
        says of it.
    """
    tensors, seen = keras.tree.flatten(tensors), set()
    while tensors:
        # Keras has no public way to walk the graph of a model.
        operation, node_index, _ = tensors.pop()._keras_history
        inputs = operation._inbound_nodes[node_index].input_tensors
        # One operation may be called on several tensors, and give several.
        call = (id(operation), *map(id, inputs))
        if call not in seen:
            seen.add(call)
            passed = passes_on(operation, inputs)
            tensors += inputs if passed else ()
            yield operation, inputs, passed


def origins(tensors, passes_on):
    """The operations at which a walk by `calls_behind` ends."""
    return [x for x, _, passed in calls_behind(tensors, passes_on) if not passed]


def read_shapes(layer):
    """The shape of the first tensor that a layer reads, for each of its calls."""
    return [node.input_tensors[0].shape for node in layer._inbound_nodes]
