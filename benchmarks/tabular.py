"""Regression tables with fixed splits, and training runs over many splits at once."""

import hashlib
import math
import sys
from pathlib import Path
from typing import NamedTuple

import keras
import members
import numpy as np
import runs

import keras_sawtooth as ks

UNITS = 50
BATCH_SIZE = 64
# A fifth of it is a validation part.
SMALLEST_PART = 5
# Only kernels decay: a bias, a slope or a peak has no reason to be small.
NOT_DECAYED = ["bias", "alpha", "peak_logits", "amplitude", "slope", "relu_"]


def parse_arguments(description, name):
    """The arguments of benchmarks over sets; with `arguments.folders`, one a set."""

    def add_arguments(parser):
        parser.add_argument("--data-dir", type=Path, required=True)
        parser.add_argument(
            "--sets", nargs="+", help="folders to take; all of them, --quick the first"
        )

    arguments = runs.parse_arguments(description, name, add_arguments)
    names = arguments.sets or sorted(
        path.parent.name for path in arguments.data_dir.glob("*/data.csv")
    )
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
    return arguments


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
    table, test_rows = folder / "data.csv", folder / "test_rows.txt"
    header, *lines = table.read_text().splitlines()
    if _are_numbers(header.split(",")):
        sys.exit(f"{table} must begin with a line of names. Received: {header!r}")
    try:
        data = np.loadtxt(lines, delimiter=",", ndmin=2)
        lines = [line.split() for line in test_rows.read_text().splitlines()]
        # The files of some collections have their row numbers as floats.
        splits = [np.array(line, float) for line in lines if line]
    except ValueError as error:
        sys.exit(f"{table} or {test_rows} cannot be read: {error}")
    if data.shape[1] < 2 or not splits:
        sys.exit(f"{folder} must have features, a target, and at least one split.")
    for i, rows in enumerate(splits):
        known = (0 <= rows) & (rows < len(data)) & (rows == np.floor(rows))
        trained = len(data) - len(rows)
        if not known.all() or len(set(rows)) < len(rows) or trained < SMALLEST_PART:
            sys.exit(
                f"Split {i} of {test_rows} must be some of the rows 0 to "
                f"{len(data) - 1}, each once, and leave {SMALLEST_PART} to train on. "
                f"Received: {len(rows)} rows from {rows.min():g} to {rows.max():g}"
            )
    incomplete = np.flatnonzero(~np.isfinite(data).all(axis=1))
    if len(incomplete):
        sys.exit(f"Row {incomplete[0]} of {table} has a missing value.")
    return Table(data[:, :-1], data[:, -1], [rows.astype(int) for rows in splits])


def _are_numbers(fields):
    try:
        np.array(fields, float)
    except ValueError:
        return False
    return True


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
        moments = [(a.mean(axis=0), a.std(axis=0)) for a in (x, y)]
        # A feature that never changes says nothing; its deviation is rounding.
        moments = [
            (mean, np.where(std > 1e-9 * np.abs(mean), std, 1)) for mean, std in moments
        ]
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
