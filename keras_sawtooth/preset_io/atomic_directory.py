"""The directory of a preset, written whole or not at all."""

import contextlib
import os
import pathlib
import shutil
import uuid

from keras_sawtooth.preset_io.files import CONFIG


@contextlib.contextmanager
def written_whole(target):
    """A draft of a directory, put into its place when all went well.

    A new directory appears at once. One that exists stays itself, as it may be a mount
    point, or where a process works: files are moved into it, see `_move_files`.
    """
    target = pathlib.Path(os.path.abspath(target))
    exists = target.exists()
    place = target if exists else target.parent
    place.mkdir(parents=True, exist_ok=True)
    # Only inside of one file system files and directories can be renamed.
    draft = place / f".{target.name}-{uuid.uuid4().hex}"
    draft.mkdir()
    try:
        yield draft
        if exists:
            _move_files(draft, target)
        else:
            draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _move_files(draft, target):
    """Replace files, and put the old ones back if that fails.

    The config goes first and comes last, so that no old config meets new weights.
    """
    names = sorted(os.listdir(draft), key=lambda name: name == CONFIG)
    old = draft / "old"
    old.mkdir()
    moves = [
        (target / name, old / name)
        for name in reversed(names)
        if (target / name).exists()
    ]
    moves += [(draft / name, target / name) for name in names]
    done = []
    try:
        for source, destination in moves:
            os.replace(source, destination)
            done.append((source, destination))
    except BaseException:
        for source, destination in reversed(done):
            os.replace(destination, source)
        raise
