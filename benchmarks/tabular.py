"""Regression tables with fixed splits, and training runs over many splits at once."""

import hashlib
import math
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import keras
import members
import numpy as np
import runs

import keras_sawtooth as ks

# The sets whose results the documentation shows.
DOCUMENTED = {"concrete", "energy", "kin8nm", "power"}
UNITS = 50
BATCH_SIZE = 64
# A fifth of it is a validation part.
SMALLEST_PART = 5
VALIDATION_SPLITS = 3
VALIDATION_SEEDS = 2
# The squares of larger numbers, summed over the rows, may be infinite.
LARGEST = 1e150
# Only kernels decay: a bias, a slope or a peak has no reason to be small.
NOT_DECAYED = ["bias", "alpha", "peak_logits", "amplitude", "slope", "relu_"]


def parse_arguments(documentation, output):
    """The arguments of benchmarks over sets; with `arguments.folders`, one a set.

    `arguments.pictures` is `None` where other sets would replace a picture in the
    documentation.
    """

    def add_arguments(parser):
        parser.add_argument(
            "--data-dir", type=Path, required=True, help="a folder with a folder a set"
        )
        parser.add_argument(
            "--sets", nargs="+", help="folders to take; all of them, --quick the first"
        )

    arguments = runs.parse_arguments(documentation, output, add_arguments)
    names = arguments.sets or sorted(
        path.parent.name for path in arguments.data_dir.glob("*/data.csv")
    )
    names = dict.fromkeys(names)
    arguments.folders = [arguments.data_dir / name for name in names]
    missing = [
        folder / name
        for folder in arguments.folders
        for name in ("data.csv", "test_rows.txt")
        if not (folder / name).exists()
    ]
    if missing or not arguments.folders:
        sys.exit(
            "Every set is a folder in --data-dir with a data.csv and a test_rows.txt. "
            f"Not found: {missing[0] if missing else arguments.data_dir / '*/data.csv'}"
        )
    if arguments.quick and not arguments.sets:
        arguments.folders = arguments.folders[:1]
    in_documentation = arguments.pictures == runs.PICTURES
    recorded = arguments.output == runs.RESULTS / output
    if in_documentation and recorded and set(names) != DOCUMENTED:
        arguments.pictures = None
    return arguments


def open_sets(arguments, **recipe):
    """Table and `Runs` of every set, by name: all are checked before any is used."""
    return {
        folder.name: (
            load(folder),
            runs.Runs(
                arguments.output / f"{folder.name}.json",
                arguments.quick,
                data=checksum(folder),
                units=UNITS,
                **recipe,
            ),
        )
        for folder in arguments.folders
    }


class Table(NamedTuple):
    x: np.ndarray  # (rows, features)
    y: np.ndarray  # (rows,)
    test_rows: list  # of row numbers, one list a split


class Part(NamedTuple):
    """Rows to train or to judge on, `(rows, members, features or 1)`.

    Members with fewer rows are filled up with some of their own rows.
    """

    x: np.ndarray
    y: np.ndarray
    rows: list  # how many rows a member has


def checksum(folder):
    """Of the rows and the splits in a folder, a str."""
    files = [(folder / name).read_bytes() for name in ("data.csv", "test_rows.txt")]
    return hashlib.sha256(b"".join(files)).hexdigest()


def load(folder):
    """A folder's `data.csv`, target last, and `test_rows.txt`, one line a split."""
    data = _load_rows(folder / "data.csv")
    test_rows = _load_splits(folder / "test_rows.txt", len(data))
    return Table(data[:, :-1], data[:, -1], test_rows)


def _read_lines(path):
    """The lines of a file; empty ones at its end do not count."""
    try:
        # Not `splitlines`, which has other ends of lines than editors.
        lines = path.read_text("utf-8-sig").rstrip().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        sys.exit(f"{path} is not to be read as text in UTF-8: {error}")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            sys.exit(f"{path}, line {number}: it is empty. Fill it in, or remove it.")
    return lines


def _load_rows(path):
    """A line of names and lines of as many numbers, an array."""
    names, *rows = [line.split(",") for line in _read_lines(path)]
    if len(names) < 2 or np.isfinite([_number(name) for name in names]).all():
        sys.exit(
            f"{path}, line 1: {','.join(names)!r} must be the names of at least one "
            f"feature and the target, with commas between them."
        )
    if not rows:
        sys.exit(f"{path} must have rows of numbers below its line of names.")
    for number, row in enumerate(rows, 2):
        if len(row) != len(names):
            sys.exit(
                f"{path}, line {number}: {','.join(row)!r} must be {len(names)} "
                f"numbers with commas between them, one for each of the names in line "
                f"1, and is {len(row)}."
            )
    data = np.array([[_number(text) for text in row] for row in rows])
    wrong = np.argwhere(~(np.abs(data) < LARGEST))
    if len(wrong):
        row, column = wrong[0]
        sys.exit(
            f"{path}, line {row + 2}, column {names[column]!r}: "
            f"{rows[row][column]!r} must be a number, without quotes, finite and below "
            f"{LARGEST:g}."
        )
    return data


def _load_splits(path, n_rows):
    """Lines of row numbers, a list of arrays."""
    splits = []
    for number, line in enumerate(_read_lines(path), 1):
        split, place = [], f"{path}, line {number}"
        for text in line.split():
            # The files of some collections have their row numbers as floats.
            row = _number(text)
            if not (row.is_integer() and 0 <= row < n_rows):
                sys.exit(
                    f"{place}: {text!r} must be one of the rows 0 to {n_rows - 1}, "
                    f"with spaces between them."
                )
            split.append(int(row))
        twice = [row for row, count in Counter(split).items() if count > 1]
        if twice:
            sys.exit(f"{place}: row {twice[0]} must be there once only.")
        if n_rows - len(split) < SMALLEST_PART:
            sys.exit(
                f"{place}: it has {len(split)} of {n_rows} rows, and must leave "
                f"{SMALLEST_PART} to train on."
            )
        splits.append(np.array(split))
    return splits


def _number(text):
    """A float; NaN if the text is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def parts(table, splits, validation, seeds=1):
    """Standardized parts to train and to judge on, and the target's deviations.

    Args:
        table: a `Table`.
        splits: list of int, the splits to use; every one `seeds` times.
        validation: bool. Judge on a fifth of the training part, and leave the test
            part alone.
        seeds: int. Members a split; they see their rows in different orders.

    Returns:
        Two `Part`s and an array `(members,)`, in the target's unit.
    """
    train, judged, deviations = [], [], []
    for split in splits:
        held_out = table.test_rows[split]
        rows = np.setdiff1d(np.arange(len(table.x)), held_out)
        if validation:
            rows = np.random.default_rng(split).permutation(rows)
            n = len(rows) // 5
            rows, held_out = rows[n:], rows[:n]
        x, y = table.x[rows], table.y[rows, None]
        moments = [(a.mean(axis=0), deviation(a)) for a in (x, y)]
        for seed in range(seeds):
            order = np.random.default_rng([split, seed]).permutation(rows)
            for part, numbers in ((train, order), (judged, held_out)):
                values = table.x[numbers], table.y[numbers, None]
                part.append(
                    [
                        (a - mean) / std
                        for a, (mean, std) in zip(values, moments, strict=True)
                    ]
                )
            deviations.append(moments[1][1][0])
    return stack(train), stack(judged), np.array(deviations)


def validation_parts(table, seeds):
    """`parts` of the first splits, as many as there are, with a validation part."""
    splits = range(min(VALIDATION_SPLITS, len(table.test_rows)))
    return parts(table, splits, True, seeds)


def deviation(columns):
    """Standard deviations by which to divide, `(columns,)`: 1 of what never changes."""
    deviations = columns.std(axis=0)
    # The deviation of equal values may be rounding, and that of tiny ones may be zero.
    changes = (np.ptp(columns, axis=0) > 0) & (deviations > 0)
    return np.where(changes, deviations, 1)


def stack(tables):
    rows = [len(x) for x, _ in tables]
    x, y = (
        np.stack([np.resize(a, (max(rows), a.shape[1])) for a in arrays], axis=1)
        for arrays in zip(*tables, strict=True)
    )
    return Part(x.astype("float32"), y.astype("float32"), rows)


def train(
    trained,
    judged,
    deviations,
    *,
    model,
    layers,
    rate,
    weight_decay,
    steps,
    beta_2=0.999,
    batch_size=BATCH_SIZE,
    release=0.5,
    **arguments,
):
    """Train all members; RMSE in the target's unit on the part that judges.

    Args:
        trained: `Part` to train on.
        judged: `Part` to judge on.
        deviations: array `(members,)` of the target.
        model: name of the hidden layers, see `members.hidden`.
        layers: int. Number of hidden layers.
        rate: float. Peak of the learning rate, which follows a cosine to zero.
        weight_decay: float. Of the kernels.
        steps: int. About how many training steps; at least two epochs.
        beta_2: float. How slowly AdamW forgets squared gradients.
        release: float. Share of the epochs after which sawtooth layers are
            released, but at least one epoch.
        **arguments: of the `RegionConstraint`.

    Returns:
        Dict: RMSE of every member on both parts, the parameters of one, and the steps.
    """
    keras.utils.set_random_seed(0)
    n_members = trained.x.shape[1]
    network = keras.Sequential([keras.Input(trained.x.shape[1:])])
    for _ in range(layers):
        for layer in members.hidden(model, n_members, UNITS, **arguments):
            network.add(layer)
    network.add(members.dense(n_members, 1))
    batches = -(-len(trained.x) // batch_size)
    epochs = max(2, round(steps / batches))
    optimizer = keras.optimizers.AdamW(
        keras.optimizers.schedules.CosineDecay(rate, epochs * batches),
        weight_decay=weight_decay,
        beta_2=beta_2,
    )
    optimizer.exclude_from_weight_decay(var_names=NOT_DECAYED)
    network.compile(optimizer, loss=members.squared_error)
    callbacks = [runs.Progress()]
    if model == "sawtooth released":
        epoch = max(1, round(release * epochs))
        callbacks.append(ks.ReleaseConstraints(epoch=epoch))
    network.fit(
        trained.x,
        trained.y,
        epochs=epochs,
        batch_size=batch_size,
        callbacks=callbacks,
        verbose=0,
    )
    # Not the fixed grid of a KAN.
    parameters = sum(math.prod(v.shape) for v in network.trainable_variables)
    return {
        "rmse": rmse(network, judged, deviations),
        "training_rmse": rmse(network, trained, deviations),
        "parameters": parameters // n_members,
        "trained_steps": epochs * batches,
    }


def rmse(network, part, deviations):
    """RMSE of every member in the target's unit, a list."""
    outputs = network.predict(part.x, batch_size=4096, verbose=0)
    errors = (outputs.astype("float64") - part.y)[..., 0]
    means = [np.mean(errors[:rows, m] ** 2) for m, rows in enumerate(part.rows)]
    return [float(f"{e:.6g}") for e in deviations * np.sqrt(means)]
