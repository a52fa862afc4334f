"""`load_weights`: a weights file of either phase, whole or not at all."""

import os
import warnings
from contextlib import contextmanager

import keras

from keras_sawtooth.nested_layers import built_region_layers
from keras_sawtooth.nested_layers import compiled_models
from keras_sawtooth.nested_layers import flatten_layers
from keras_sawtooth.saving.phase_files import collect_followers
from keras_sawtooth.saving.state_trees import set_state_tree
from keras_sawtooth.training.model_phase import build_optimizer
from keras_sawtooth.training.model_phase import forget_old_variables
from keras_sawtooth.training.model_phase import rebuild_model
from keras_sawtooth.training.model_phase import undone_on_failure
from keras_sawtooth.training.model_phase import variable_scope


def load_weights(model, filepath, skip_mismatch=False, **kwargs):
    """Load a weights file of either phase, whole or not at all.

    Does what `model.load_weights` does, and more: layers change to the phase that they
    have in the file, and the optimizer of a compiled model is replaced by one for the
    new variables before its state is loaded. If anything fails, the model is what it
    was before.

    Args:
        model: a built `keras.Model`.
        filepath: str or path of a `.weights.h5`, `.weights.json` or `.keras` file, or
            of a directory that `keras.callbacks.OrbaxCheckpoint` wrote: then the model
            must be compiled, and its layers have the names and arguments that they had.
        skip_mismatch: bool. As in `keras.Model.load_weights`, for files.
        **kwargs: further arguments of `keras.Model.load_weights`, for files.

    Returns:
        List of the `RegionConstraint` layers that changed their phase to follow the
        file.

    Raises:
        FileNotFoundError: if there is no such file.
        TypeError: if `model` is not a `keras.Model`, or `filepath` not a path.
        ValueError: if the file is damaged, belongs to another model, holds NaN values,
            or leaves NaN values that the model had before; if it is a legacy `.h5`
            or `.hdf5` file; if Orbax wrote it, and `model` is not built or compiled.

    Example:

        >>> def build():
        ...     return keras.Sequential([keras.Input((3,)), SawtoothDense(8)])
        >>> trained = build()
        >>> released = release(trained)
        >>> path = os.path.join(tempfile.mkdtemp(), "trained.weights.h5")
        >>> trained.save_weights(path)
        >>> model = build()
        >>> len(load_weights(model, path))
        1
        >>> model.layers[0].constrained
        False
    """
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"`load_weights` takes a `keras.Model`. Received: model={model!r}"
        )
    if not isinstance(filepath, str | os.PathLike):
        raise TypeError(f"`filepath` must be a path. Received: filepath={filepath!r}")
    name = str(filepath)
    legacy = name.endswith((".h5", ".hdf5")) and not name.endswith(".weights.h5")
    if legacy and os.path.isfile(name):
        raise ValueError(
            "A legacy HDF5 file does not say of its layers which domain and phase they "
            "have. Load the model, `keras.saving.load_model(file)`, and save its "
            f"weights to a `.weights.h5` file. Received: filepath={name!r}"
        )
    with variable_scope(model):
        # Not every `load_weights` of a class of one's own has the argument.
        if skip_mismatch:
            kwargs["skip_mismatch"] = skip_mismatch
        return _load_weights(model, filepath, kwargs)


def _load_weights(model, filepath, kwargs):
    variables = model.variables + _optimizer_variables(model)
    try:
        diverged = any(map(_has_nan, variables))
        with _constants_renewed(model), undone_on_failure(model, variables):
            load = _load_checkpoint if os.path.isdir(filepath) else _load_file
            followers = load(model, filepath, kwargs)
            refuse_nan(model.weights + _optimizer_variables(model), diverged)
    except Exception as error:
        if isinstance(error, FileNotFoundError) and not os.path.exists(filepath):
            raise FileNotFoundError(
                f"There is no file {str(filepath)!r}, and {model.name!r} is what it "
                "was before."
            ) from error
        raise ValueError(
            f"The weights in {str(filepath)!r} cannot be loaded, and "
            f"{model.name!r} is what it was before. {error}"
        ) from error
    return followers


@contextmanager
def _constants_renewed(model):
    """Let `Normalization` follow its weights, which the block may change or restore.

    It makes constants of them, which functions that were traced hold as well. Of what
    sets weights, only Keras' loader of files renews them, but not those functions.
    """
    layers = [x for x in flatten_layers(model) if _is_adapted(x)]
    before = [(layer, layer.mean, layer.variance) for layer in layers]
    try:
        yield
    except BaseException:
        for layer, mean, variance in before:
            layer.mean, layer.variance = mean, variance
        raise
    for layer in layers:
        layer.finalize_state()
    if layers:
        forget_old_variables(model)


def _is_adapted(layer):
    if not isinstance(layer, keras.layers.Normalization):
        return False
    return layer.built and layer.input_mean is None


def _load_file(model, filepath, kwargs):
    """Load a file of Keras; returns the layers that changed their phase."""
    layers = built_region_layers(model)
    before = [(layer, layer.weights) for layer in layers]
    optimizers = [(trainer, trainer.optimizer) for trainer in compiled_models(model)]
    # The method of the class: `follow_phases` puts `load_weights` into its place.
    load = type(model).load_weights
    # Once for the layers, which may change their phase. Keras would skip the state of
    # optimizers that are still for the old variables.
    for trainer, _ in optimizers:
        trainer.optimizer = None
    with collect_followers() as followers:
        load(model, filepath, **kwargs)
    for trainer, optimizer in optimizers:
        trainer.optimizer = optimizer
    if followers:
        replaced = [item for item in before if item[0] in followers]
        rebuild_model(model, replaced)
    if optimizers:
        for trainer, optimizer in optimizers:
            if optimizer is not None:
                build_optimizer(trainer, rebuild=bool(followers))
        with warnings.catch_warnings():
            # A model that was never trained has saved its step and rate alone.
            warnings.filterwarnings(
                "ignore", "Skipping variable loading .* saved optimizer has 2 variables"
            )
            load(model, filepath, **kwargs)
    return followers


def _load_checkpoint(model, directory, kwargs):
    """Load a checkpoint of Orbax; returns the layers that changed their phase."""
    if any(kwargs.values()):
        raise ValueError(f"Checkpoints of Orbax are loaded whole. Received: {kwargs}")
    if not model.built:
        raise ValueError("It is not built: call it on data first, `model(x[:1])`.")
    if getattr(model, "optimizer", None) is None:
        raise ValueError("Keras reads checkpoints into compiled models: compile it.")
    followers = []
    # Keras reads the checkpoint and hands what is in it to this method.
    model.set_state_tree = lambda tree: followers.extend(set_state_tree(model, tree))
    try:
        # Orbax asks for an absolute path.
        type(model).load_weights(model, os.path.abspath(directory))
    finally:
        del model.set_state_tree
    return followers


def _optimizer_variables(model):
    optimizers = [trainer.optimizer for trainer in compiled_models(model)]
    return [v for o in optimizers if o is not None for v in o.variables]


def refuse_nan(variables, diverged=False):
    """Refuse what was loaded if a variable is NaN.

    Args:
        variables: list of variables to check.
        diverged: bool. Whether there were NaN values before, too.

    Raises:
        ValueError: if a value is NaN.
    """
    for variable in variables:
        if not _has_nan(variable):
            continue
        if diverged:
            raise ValueError(
                f"{variable.path!r} would be NaN, and the model has NaN values now. "
                "If the file has some, too, use one from before the training diverged. "
                "If it is without this variable, load it into a new model; for a "
                "variable of the optimizer, call `compile` first."
            )
        raise ValueError(
            f"The file holds NaN values for {variable.path!r}. "
            "Use one from before the training diverged."
        )


def _has_nan(variable):
    if not keras.backend.is_float_dtype(variable.dtype):
        return False
    return bool(keras.ops.any(keras.ops.isnan(variable.value)))
