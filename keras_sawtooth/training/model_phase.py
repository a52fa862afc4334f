"""Change the phase of layers, and rebuild what their models hold of the variables."""

from contextlib import contextmanager
from contextlib import nullcontext
from contextlib import suppress

import keras
from keras import ops

from keras_sawtooth import layer_phase
from keras_sawtooth.nested_layers import built_region_layers
from keras_sawtooth.nested_layers import compiled_models
from keras_sawtooth.nested_layers import flatten_layers
from keras_sawtooth.nested_layers import refresh_torch_parameters
from keras_sawtooth.training.optimizer_state import carry_over
from keras_sawtooth.training.optimizer_state import copy_optimizer
from keras_sawtooth.training.optimizer_state import exclude_fresh_variables
from keras_sawtooth.training.optimizer_state import excludes_from_weight_decay
from keras_sawtooth.training.optimizer_state import is_stale
from keras_sawtooth.training.second_moments import starting_velocities


def change_phase(model, layers):
    """Release constrained layers, constrain released ones, and rebuild their model.

    Args:
        model: a built `keras.Model`.
        layers: list of its `RegionConstraint` layers to be changed.

    Raises:
        ValueError: if an optimizer cannot be copied. Nothing is changed then.
    """
    replaced = [(layer, layer.weights) for layer in layers]
    own = [variable for _, variables in replaced for variable in variables]
    with variable_scope(model), undone_on_failure(model, own):
        for layer in layers:
            layer_phase.change_phase(layer)
        rebuild_model(model, replaced)


@contextmanager
def undone_on_failure(model, variables):
    """Undo changes of phase, and of optimizers, if the block raises.

    Args:
        model: a built `keras.Model`.
        variables: list of variables whose values are restored as well.
    """
    layers = [
        (layer, layer.weights, layer.constrained)
        for layer in built_region_layers(model)
    ]
    optimizers = [
        (trainer, trainer.optimizer, getattr(trainer.optimizer, "built", True))
        for trainer in compiled_models(model)
    ]
    # Copies: JAX may donate the buffer of a variable.
    values = [(variable, ops.copy(variable.value)) for variable in variables]
    try:
        yield
    except BaseException:
        for trainer, optimizer, _ in optimizers:
            set_optimizer(trainer, optimizer)
        changed = [item for item in layers if _has_changed(*item)]
        for item in changed:
            layer_phase.take_back(*item)
        if changed:
            forget_old_variables(model)
        for variable, value in values:
            variable.assign(value)
        for trainer, optimizer, was_built in optimizers:
            if not was_built and optimizer.built:
                # It was built during what failed: start again with one that is not.
                with suppress(ValueError):
                    set_optimizer(trainer, copy_optimizer(optimizer))
        raise


def rebuild_model(model, replaced):
    """Rebuild what models hold of their variables, after a change of phase.

    Args:
        model: a built `keras.Model`.
        replaced: list of pairs (layer that changed its phase, list of the variables
            that it had before).

    Raises:
        ValueError: if an optimizer cannot be copied.
    """
    swapped = [
        (layer, _without(before, layer.weights), _without(layer.weights, before))
        for layer, before in replaced
    ]
    for trainer in compiled_models(model):
        old = trainer.optimizer
        if old is None or not (old.built or excludes_from_weight_decay(old)):
            # Not built yet, it will take the new variables by itself.
            continue
        new, velocities = copy_optimizer(old), []
        for layer, gone, fresh in swapped:
            exclude_fresh_variables(old, new, gone, fresh)
            velocities += starting_velocities(old, layer, gone, fresh)
        if old.built:
            carry_over(old, new, trainer.trainable_variables, velocities)
        set_optimizer(trainer, new)
    forget_old_variables(model)


def build_optimizer(trainer, rebuild=False):
    """Build the optimizer of a compiled model, if it is not for its variables yet.

    Args:
        trainer: a compiled `keras.Model`.
        rebuild: bool. Build a copy of one that is not built yet. If what follows
            fails, the model gets the old one back, which is for any variables.

    Raises:
        ValueError: if an optimizer has to be copied and cannot be.
    """
    optimizer = trainer.optimizer
    # When Keras loads a model, layers may change their phase unnoticed by it.
    if optimizer.built and not is_stale(optimizer, trainer):
        return
    # A discriminator that is frozen in its GAN is unfrozen to be trained.
    if not optimizer.built and not trainer.trainable_variables:
        return
    if optimizer.built or rebuild:
        set_optimizer(trainer, copy_optimizer(optimizer))
    trainer.optimizer.build(trainer.trainable_variables)


def set_optimizer(trainer, optimizer):
    """Give a compiled model another optimizer, to train with and to be saved with."""
    trainer.optimizer = optimizer
    # What the model was compiled with would keep the slots of the old one alive, and
    # give copies of the model its learning rate.
    config = getattr(trainer, "_compile_config", None)
    if config is not None:
        config.config["optimizer"] = optimizer


def forget_old_variables(model):
    """Drop functions traced with old variables, and refresh torch's lists of them."""
    for layer in flatten_layers(model):
        _forget_traces(layer)
        # Also those that are not compiled: they may have predicted.
        if isinstance(layer, keras.Model):
            layer.test_function = layer.predict_function = None
            if layer.train_function is not None:
                layer.make_train_function(force=True)
    refresh_torch_parameters(model)


def _forget_traces(layer):
    """Let methods that are decorated with `tf.function` be traced again."""
    for cls in type(layer).__mro__:
        for member in vars(cls).values():
            traced = getattr(member, "_descriptor_cache", None)
            if traced is not None:
                traced.pop(layer, None)


def variable_scope(model):
    """Where new variables join those of the model: on TensorFlow, its strategy."""
    strategy = getattr(model, "distribute_strategy", None)
    return nullcontext() if strategy is None else strategy.scope()


def _has_changed(layer, variables, constrained):
    same = [id(v) for v in layer.weights] == [id(v) for v in variables]
    return not same or layer.constrained != constrained


def _without(variables, others):
    others = {id(variable) for variable in others}
    return [variable for variable in variables if id(variable) not in others]
