"""Variables of a layer in a weights file, under a checksum."""

import zlib

import numpy as np

CHECKSUM = "crc32"


def write(store, values):
    """Write variables into the store of a layer, and a checksum beside them.

    HDF5 files have no checksums by themselves: a flipped bit would load as
    another number.

    Args:
        store: the store that Keras hands to `save_own_variables`.
        values: dict of names and variables.
    """
    for name, value in values.items():
        store[name] = value
    store[CHECKSUM] = _checksum({name: store[name] for name in values})


def read(store, layer):
    """Read what `write` wrote, as a dict of names and NumPy arrays.

    Args:
        store: the store that Keras hands to `load_own_variables`.
        layer: str. Name of the layer, for the error.

    Raises:
        ValueError: if an array is unreadable, holds no numbers, or NaN or infinite
            ones, or if the checksum is not theirs.
    """
    values = {}
    for name in store.keys():
        try:
            value = np.asarray(store[name])
            # Not of complex numbers, of which NumPy would drop a part with a warning.
            numbers = value.astype("float64", casting="same_kind")
        except Exception as error:
            raise ValueError(
                f"The file is damaged: variable {name!r} of layer {layer!r} cannot "
                f"be read as numbers. {error}"
            ) from error
        if not np.isfinite(numbers).all():
            raise ValueError(
                f"Variable {name!r} of layer {layer!r} holds "
                f"{np.count_nonzero(~np.isfinite(numbers))} NaN or infinite values "
                "in the file. Use a file from before the training diverged."
            )
        values[name] = value
    checksum = values.pop(CHECKSUM, None)
    # Files that other programs wrote may come without one.
    if checksum is not None and not np.array_equal(checksum, _checksum(values)):
        raise ValueError(
            f"The file is damaged: the variables {sorted(values)} of layer "
            f"{layer!r} do not have the checksum that was saved with them."
        )
    return values


def _checksum(values):
    checksum = 0
    for name in sorted(values):
        value = np.asarray(values[name])
        description = f"{name}{value.shape}".encode()
        # The same for every dtype that a store may keep the numbers in.
        content = value.astype("<f8").tobytes()
        checksum = zlib.crc32(content, zlib.crc32(description, checksum))
    return np.array(checksum, "uint32")
