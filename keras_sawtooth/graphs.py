"""Sequential and functional models, whose clones must compute the same."""

import keras


def is_graph(layer):
    """Whether a layer is a Sequential or functional model."""
    # Keras exports no class for functional models.
    return isinstance(layer, keras.Sequential) or hasattr(layer, "operations")


def check_same_call(model, result):
    """Refuse a clone that would compute something else than the model does.

    Args:
        model: a Sequential or functional model.
        result: what `keras.models.clone_model` made of it.

    Raises:
        TypeError: if a class in `model` has a `call` that its clone has not.
    """
    if type(model).call is not type(result).call:
        raise TypeError(
            f"{model.name!r} cannot be copied: it is a functional model, but "
            f"{type(model).__name__} has a `call` and an `__init__` of its own. "
            f"Received: model={model!r}"
        )
    # There may be layers outside of the graph, which are not copied.
    copies = {layer.name: layer for layer in result.layers}
    for layer in model.layers:
        if is_graph(layer) and layer.name in copies:
            check_same_call(layer, copies[layer.name])
