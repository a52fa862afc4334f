"""Configurations of layers, with learnable functions for their activations."""

import contextlib
import inspect

import keras

from keras_sawtooth.nested_layers import flatten_layers
from keras_sawtooth.region_constraint import RegionConstraint
from keras_sawtooth.sawtooth_dense import SawtoothDense
from keras_sawtooth.swap.pointwise import ACTIVATION_LAYERS

REGION_ARGUMENTS = set(inspect.signature(RegionConstraint.__init__).parameters) - {
    "self",
    "kwargs",
}


class Rewriter:
    """Makes layers from those of a model, with the chosen activations replaced.

    A layer is made from its configuration. Where it holds chosen layers, the
    configuration must say so: it holds a layer in serialized form, or an argument
    such as `activation` that ends as theirs.

    Args:
        model: the model that the layers are parts of.
        chosen: list of the layers that are replaced, or whose activation is.
        arguments: dict, the arguments of `SawtoothDense`, `depth` among them.

    Attributes:
        done: set of ids, the chosen layers that the configurations describe.
        regions: set of the names of the new `RegionConstraint` layers that became
            the activation of a layer.
        entered: list of the names of layers of which an argument was replaced.
    """

    def __init__(self, model, chosen, arguments):
        self._names = {layer.name for layer in flatten_layers(model)}
        self.chosen = {id(layer) for layer in chosen}
        self.arguments = arguments
        self.done = set()
        self.regions = set()
        self.entered = []
        # Layers that stand in a configuration themselves, changed or not.
        self._described = set()
        self._serialized = {}

    def copy(self, layer):
        """A new layer or operation like `layer`, without its weights."""
        if id(layer) in self.chosen:
            return self._replacement(layer)
        with _explained(layer):
            config = layer.get_config()
        rewritten = self.holds_chosen(layer)
        if rewritten:
            config = self._rewritten(layer, config)
        with _explained(layer, rewritten):
            return type(layer).from_config(config)

    def holds_chosen(self, layer):
        """Whether a layer is, or holds, one of the chosen layers."""
        return isinstance(layer, keras.layers.Layer) and any(
            id(x) in self.chosen for x in flatten_layers(layer)
        )

    def _replacement(self, layer):
        self.done.add(id(layer))
        config = layer.get_config()
        if type(layer) is keras.layers.Dense:
            config = {**config, "activation": None, **self.arguments}
            return SawtoothDense.from_config(config)
        if type(layer) in ACTIVATION_LAYERS:
            regularizer = layer.activity_regularizer
            return self._make_region(
                layer, layer.name, activity_regularizer=regularizer
            )
        config["activation"] = self._region(layer, "activation", layer)
        return type(layer).from_config(config)

    def _make_region(self, user, name, **arguments):
        unknown = set(self.arguments) - REGION_ARGUMENTS
        if unknown:
            raise ValueError(
                f"For {user.name!r} ({type(user).__name__}) a `RegionConstraint` takes "
                "the place of the activation, and has no arguments "
                f"{sorted(unknown)}. Leave out the arguments or, by `where`, such "
                "layers: `where=lambda layer: isinstance(layer, keras.layers.Dense)`."
            )
        arguments |= {"name": name, "dtype": user.dtype_policy}
        return RegionConstraint(**arguments, **self.arguments)

    def _region(self, owner, entry, user):
        """What takes the place of an `entry` of the configuration of `owner`."""
        # Unique in the model, and the same when a file is loaded.
        name = f"{owner.path or owner.name}/{entry}".replace("/", "_")
        while name in self._names:
            name += "_region"
        region = self._make_region(user, name)
        # At once: layers may compute the shape of their output without calling their
        # activation, which would then have no variables that could be saved.
        region.build((None, channels(user)))
        self.regions.add(name)
        return keras.saving.serialize_keras_object(region)

    def _rewritten(self, layer, config):
        """`config` of a layer that holds chosen ones."""
        config = {
            entry: self._rewritten_value(layer, value)
            for entry, value in config.items()
        }
        for entry, value in config.items():
            users = self._users(layer, entry, value)
            if any(id(x) in self.chosen for x in users):
                self._check_shared(layer, entry, users)
                self.done.update(id(x) for x in users)
                self.entered.append(layer.name)
                config[entry] = self._region(layer, entry, users[0])
        return config

    def _rewritten_value(self, layer, value):
        if isinstance(value, list | tuple):
            return type(value)(self._rewritten_value(layer, x) for x in value)
        if not isinstance(value, dict):
            return value
        found = self._described_by(layer, value)
        self._described.update(id(x) for x in found)
        if not any(self.holds_chosen(x) for x in found):
            return {k: self._rewritten_value(layer, x) for k, x in value.items()}
        chosen = [id(x) in self.chosen for x in found]
        if any(chosen):
            self._check_all("several layers of one name and configuration", found)
            self.done.update(id(x) for x in found)
            new = keras.saving.serialize_keras_object(self._replacement(found[0]))
            # Of an entry of a nested model, there is more than the layer.
            return {**value, **new}
        return {**value, "config": self._rewritten(found[0], value["config"])}

    def _described_by(self, layer, value):
        """The layers inside `layer` that this dict may be the serialized form of."""
        if not {"class_name", "config"} <= set(value):
            return []
        return [
            x
            for x in flatten_layers(layer)
            if x is not layer
            and type(x).__name__ == value["class_name"]
            and self._serialized_config(x) == value["config"]
        ]

    def _serialized_config(self, layer):
        if id(layer) not in self._serialized:
            try:
                config = keras.saving.serialize_keras_object(layer)["config"]
            except Exception:
                # It is in no configuration, or that of its owner could not be had.
                config = None
            self._serialized[id(layer)] = config
        return self._serialized[id(layer)]

    def _users(self, layer, entry, value):
        """The layers inside `layer` whose activation is this entry."""
        if not entry.endswith("activation") or value is None:
            return []
        try:
            activation = keras.activations.get(value)
        except (TypeError, ValueError):
            return []
        return [
            x
            for x in flatten_layers(layer)
            if self._is_entry(getattr(x, "activation", None), value, activation)
            and id(x) not in self._described
            # Others pass it on to those they hold.
            and (id(x) in self.chosen or not self.holds_chosen(x))
        ]

    def _is_entry(self, activation, value, made):
        """Whether an activation is the entry `value`, of which Keras makes `made`."""
        if not isinstance(activation, keras.layers.Layer) or made is activation:
            return made is activation
        # From an entry, Keras makes another layer.
        config = self._serialized_config(activation)
        if config is None or not isinstance(value, dict):
            return False
        return value.get("config") == config

    def _check_shared(self, layer, entry, users):
        what = f"the argument {entry!r} of layer {layer.name!r}"
        self._check_all(what, users)
        widths = {x.name: channels(x) for x in users}
        if len(set(widths.values())) > 1:
            raise ValueError(
                f"One `RegionConstraint` cannot stand for {what}: it is the activation "
                f"of layers with different numbers of channels, {widths}. Leave them "
                f"out: `where=lambda layer: layer.name not in {sorted(widths)}`."
            )

    def _check_all(self, what, layers):
        kept = [x.name for x in layers if id(x) not in self.chosen]
        if kept:
            names = [x.name for x in layers if id(x) in self.chosen]
            raise ValueError(
                f"{names} are to be replaced and {kept} are not, but {what} stands "
                "for all of them. Choose all or none by `where` and `kinds`."
            )


def channels(layer):
    """Size of the last axis of a layer's output."""
    return layer.compute_output_shape(layer.get_build_config()["input_shape"])[-1]


@contextlib.contextmanager
def _explained(layer, rewritten=False):
    try:
        yield
    except Exception as error:
        name = type(layer).__name__
        change = ""
        if rewritten:
            change = ", with learnable functions in place of activations"
        raise TypeError(
            f"{layer.name!r} cannot be copied: no {name} can be made from its "
            f"`{name}.get_config()`{change}. {type(error).__name__}: {error}"
        ) from error
