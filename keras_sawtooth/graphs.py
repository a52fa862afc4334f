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


def made_by(tensor):
    """The operation that a symbolic tensor comes from, and the tensors that it read."""
    # Keras has no public way to walk the graph of a model.
    operation, node_index, _ = tensor._keras_history
    return operation, _read_tensors(operation)[node_index]


def origins(tensors, passes_on):
    """The operations that tensors come from, behind those that pass tensors on.

    `passes_on` takes an operation and the tensors that it read, and returns a bool.
    """
    tensors, seen, found = keras.tree.flatten(tensors), set(), []
    while tensors:
        tensor = tensors.pop()
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        operation, inputs = made_by(tensor)
        if passes_on(operation, inputs):
            tensors += inputs
        else:
            found.append(operation)
    return found


def read_shapes(layer):
    """The shape of the first tensor that a layer reads, for each of its calls."""
    return [tensors[0].shape for tensors in _read_tensors(layer)]


def _read_tensors(operation):
    return [node.input_tensors for node in operation._inbound_nodes]
