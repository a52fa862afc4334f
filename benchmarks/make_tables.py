r"""Regression tables that had no part in the making of the package, for uci.py.

Writes folders with a `data.csv` (header, target last) and a `test_rows.txt` (20 lines,
the row numbers of the test parts) into DIR:

    python benchmarks/make_tables.py DIR
    python benchmarks/uci.py --data-dir DIR --output benchmarks/results/other_tables \
        --pictures docs/images

Four are samples of simulators that the literature on surrogate models uses, evenly
distributed over their ranges and exact; `friedman1` has noise; `diabetes` was measured.

Reference:
    - Surjanovic and Bingham, Virtual Library of Simulation Experiments: borehole,
      piston, wing weight, Ishigami.
    - Friedman (1991), Multivariate adaptive regression splines: friedman1.
    - Efron et al. (2004), Least angle regression: diabetes.
"""

import argparse
from pathlib import Path

import numpy as np
from sklearn import datasets

ROWS = 1000
SPLITS = 20
TEST_SHARE = 0.1


def borehole(r_w, r, t_u, h_u, t_l, h_l, length, k_w):
    """Flow of water through a borehole, m3 a year."""
    log = np.log(r / r_w)
    leakage = 2 * length * t_u / (log * r_w**2 * k_w)
    return 2 * np.pi * t_u * (h_u - h_l) / (log * (1 + leakage + t_u / t_l))


def piston(mass, area, volume, k, pressure, t_ambient, t_gas):
    """Time in which a piston goes through a cycle, seconds."""
    gas = pressure * volume / t_gas * t_ambient
    force = pressure * area + 19.62 * mass - k * volume / area
    reached = area / (2 * k) * (np.sqrt(force**2 + 4 * k * gas) - force)
    return 2 * np.pi * np.sqrt(mass / (k + area**2 * gas / reached**2))


def wing_weight(s_w, w_fw, a, sweep, q, taper, t_c, n_z, w_dg, w_p):
    """Weight of the wing of a light aircraft, pounds; the sweep in degrees."""
    cos = np.cos(np.radians(sweep))
    shape = (a / cos**2) ** 0.6 * q**0.006 * taper**0.04 * (100 * t_c / cos) ** -0.3
    return 0.036 * s_w**0.758 * w_fw**0.0035 * shape * (n_z * w_dg) ** 0.49 + s_w * w_p


def ishigami(x1, x2, x3):
    return np.sin(x1) + 7 * np.sin(x2) ** 2 + 0.1 * x3**4 * np.sin(x1)


# The ranges of the arguments.
SIMULATORS = {
    borehole: [
        (0.05, 0.15),
        (100, 50000),
        (63070, 115600),
        (990, 1110),
        (63.1, 116),
        (700, 820),
        (1120, 1680),
        (9855, 12045),
    ],
    piston: [
        (30, 60),
        (0.005, 0.02),
        (0.002, 0.01),
        (1000, 5000),
        (90000, 110000),
        (290, 296),
        (340, 360),
    ],
    wing_weight: [
        (150, 200),
        (220, 300),
        (6, 10),
        (-10, 10),
        (16, 45),
        (0.5, 1),
        (0.08, 0.18),
        (2.5, 6),
        (1700, 2500),
        (0.025, 0.08),
    ],
    ishigami: [(-np.pi, np.pi)] * 3,
}


def tables():
    """Names, features `(rows, features)` and targets `(rows,)`."""
    for simulator, ranges in SIMULATORS.items():
        low, high = np.transpose(ranges)
        x = np.random.default_rng(0).uniform(low, high, (ROWS, len(ranges)))
        yield simulator.__name__, x, simulator(*x.T)
    yield "friedman1", *datasets.make_friedman1(ROWS, noise=1.0, random_state=0)
    yield "diabetes", *datasets.load_diabetes(return_X_y=True, scaled=False)


def write(folder, x, y):
    """A table, and its splits, as `tabular.load` reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    header = ",".join([*(f"x{i}" for i in range(x.shape[1])), "y"])
    data = np.column_stack([x, y])
    np.savetxt(folder / "data.csv", data, "%.9g", ",", header=header, comments="")
    rng = np.random.default_rng(1)
    number = round(TEST_SHARE * len(x))
    splits = [rng.permutation(len(x))[:number] for _ in range(SPLITS)]
    lines = [" ".join(map(str, rows)) for rows in splits]
    (folder / "test_rows.txt").write_text("\n".join(lines) + "\n")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path, help="where the folders go")
    directory = parser.parse_args().directory
    for name, x, y in tables():
        write(directory / name, x, y)
        print(f"{name}: {x.shape[0]} rows, {x.shape[1]} features")


if __name__ == "__main__":
    main()
