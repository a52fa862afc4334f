"""What a preset would take in memory, before it takes it."""

import copy
import errno
import math
import os
import random
import re
from concurrent.futures import ThreadPoolExecutor

import h5py
import keras

# Weights that no file holds: seeds, low-rank updates, and states of layers. In bytes.
SPARE = 4 * 2**20
SPARE_FACTOR = 4
# Numbers, and bfloat16, which HDF5 knows as two bytes.
KINDS = "biufcV"


def check_size(config, paths, custom_objects):
    """Refuse a model that is larger than its weights files.

    Args:
        config: dict, a serialized model that was checked already.
        paths: list of the paths of its weights files.
        custom_objects: dict of what the config refers to.

    Raises:
        ValueError: if the file claims more than it holds, or the config describes a
            model that is not of its size.
    """
    held = sum(map(count_bytes, paths))
    limit = SPARE_FACTOR * held + SPARE
    described = leaving_no_trace(_describe, config, limit, custom_objects)
    if described > limit:
        raise ValueError(
            f"Its config describes a model with weights of {described:,} bytes, and "
            f"the weights file holds {held:,}."
        )


def leaving_no_trace(function, *arguments):
    """Call a function that builds a model which is not kept."""
    # Layers without a seed draw one.
    state = random.getstate()
    try:
        # Keras lists names, and variables to be initialized, by thread.
        with ThreadPoolExecutor(1) as executor:
            return executor.submit(function, *arguments).result()
    finally:
        random.setstate(state)


def count_bytes(path):
    """Size of the arrays in an HDF5 file that hides nothing, without its holes."""
    stored, seen = 0, set()
    size = path.stat().st_size
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path.name!r} is not a valid HDF5 file. {error}") from error
    with file:
        groups = [file]
        while groups:
            group = groups.pop()
            for name in group:
                item = _item(group, name)
                address = h5py.h5o.get_info(item.id).addr
                if address in seen:
                    raise ValueError(f"{path.name!r} holds {item.name!r} twice.")
                seen.add(address)
                if isinstance(item, h5py.Group):
                    groups.append(item)
                else:
                    stored += _stored_bytes(item)
    # Arrays that lie over each other in the file.
    if stored > size:
        raise ValueError(
            f"{path.name!r} claims {stored:,} bytes of arrays and has {size:,}."
        )
    # Zeros may be holes on an honest disk, too, so a few are allowed.
    on_disk = _bytes_on_disk(path)
    if stored > SPARE_FACTOR * on_disk + SPARE:
        raise ValueError(
            f"{path.name!r} claims {stored:,} bytes of arrays, and {on_disk:,} are on "
            "the disk: a sparse file."
        )
    return min(stored, on_disk)


def _bytes_on_disk(path):
    """Size of a file without its holes, where the operating system tells them."""
    size = path.stat().st_size
    if not hasattr(os, "SEEK_HOLE"):
        return size
    # Not `st_blocks`: some file systems count blocks only when they have written them.
    found, start = 0, 0
    with open(path, "rb", buffering=0) as file:
        while start < size:
            try:
                start = file.seek(start, os.SEEK_DATA)
                end = file.seek(start, os.SEEK_HOLE)
            except OSError as error:
                # After the last data, or a file system without holes.
                return found if error.errno == errno.ENXIO else size
            found, start = found + end - start, end
    return found


def _item(group, name):
    link = group.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink):
        raise ValueError(
            f"The weights file holds a {type(link).__name__}: {group.name}/{name}."
        )
    item = group[name]
    if not isinstance(item, h5py.Group | h5py.Dataset):
        raise ValueError(f"The weights file holds no array at {item.name!r}: {item!r}.")
    return item


def _stored_bytes(dataset):
    if dataset.shape is None or dataset.dtype.kind not in KINDS:
        raise ValueError(f"{dataset.name!r} in the weights file holds no numbers.")
    if dataset.external or dataset.is_virtual:
        raise ValueError(f"{dataset.name!r} in the weights file lies in another file.")
    claimed = math.prod(dataset.shape) * dataset.dtype.itemsize
    stored = dataset.id.get_storage_size()
    # Keras does not compress, and a compressed file bounds nothing.
    if claimed > stored:
        raise ValueError(
            f"{dataset.name!r} in the weights file claims {claimed:,} bytes, and "
            f"{stored:,} are stored: a damaged or a compressed file."
        )
    return claimed


class _ValuelessScope(keras.StatelessScope):
    """Variables without values. Their initializers must not run where they are big."""

    def __init__(self, limit):
        super().__init__(initialize_variables=False)
        self.limit = limit

    def get_current_value(self, variable):
        # A layer that reads its variables in `build` has them initialized.
        if _bytes_of(variable) > self.limit:
            raise ValueError(
                f"Its config describes the variable {variable.path!r} of shape "
                f"{tuple(variable.shape)}, which the weights file cannot hold."
            )
        return super().get_current_value(variable)


def _describe(config, limit, custom_objects):
    with _ValuelessScope(limit):
        # Keras changes the dicts that it reads.
        model = keras.saving.deserialize_keras_object(
            copy.deepcopy(config), custom_objects=custom_objects, safe_mode=True
        )
        if not isinstance(model, keras.Model):
            raise ValueError(
                "Its config does not describe a model. "
                f"Received: {type(model).__name__}"
            )
        if not model.built:
            raise ValueError(
                "Its config describes a model that is not built: the shape of its "
                "input is missing."
            )
        weights = list(model.weights)
        preprocessor = getattr(model, "preprocessor", None)
        if isinstance(preprocessor, keras.layers.Layer):
            # Tasks of KerasHub do not track it on torch.
            weights += preprocessor.weights
        return sum(map(_bytes_of, {id(weight): weight for weight in weights}.values()))


def _bytes_of(variable):
    bits = re.search(r"\d+", variable.dtype)
    return math.prod(variable.shape) * ((int(bits[0]) + 7) // 8 if bits else 1)
