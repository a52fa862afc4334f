"""`from_preset`: the model of a preset, by its handle."""

from keras_sawtooth.preset_files import load_preset
from keras_sawtooth.preset_handles import locate


def from_preset(handle, custom_objects=None):
    """Load the model of a preset.

    The model has the weights, phases and dtypes that were saved, and is not compiled.
    The preset need not be trusted: its files are checked before anything is built, no
    code from it runs, and it takes no more memory than its files justify.

    Args:
        handle: str or path. A key of `keras_sawtooth.presets`, a local directory,
            `"hf://{owner}/{name}"` (needs `huggingface_hub`), or
            `"kaggle://{owner}/{model}/{framework}/{variation}[/{version}]"` (needs
            `kagglehub`).
        custom_objects: dict of names and classes or functions that the preset may
            ask for, beside what is registered with Keras.

    Returns:
        The model, a `keras.Model`.

    Raises:
        FileNotFoundError: if there is no such directory, or a file is missing.
        ImportError: if the package that the handle needs is missing.
        ValueError: if the handle is malformed, or the preset is damaged or asks for
            what is not allowed.

    Example:

    >>> model = keras.Sequential([keras.Input((3,)), SawtoothDense(8)])
    >>> directory = os.path.join(tempfile.mkdtemp(), "my_preset")
    >>> save_to_preset(model, directory)
    >>> loaded = from_preset(directory)
    >>> np.array_equal(loaded.get_weights()[0], model.get_weights()[0])
    True
    """
    directory, root = locate(handle)
    return load_preset(directory, root, f"preset {str(handle)!r}", custom_objects)
