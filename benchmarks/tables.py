"""Tables for the reports of the benchmarks."""

import numpy as np


def mean_and_error(values):
    """Mean, and its standard error: NaN of a single value."""
    if len(values) == 1:
        return values[0], float("nan")
    return np.mean(values), np.std(values, ddof=1) / np.sqrt(len(values))


def with_error(values, digits, error_digits=".2g"):
    """Mean and standard error, a str; the mean alone of a single value."""
    mean, error = mean_and_error(values)
    return f"{mean:{digits}}" + (
        "" if np.isnan(error) else f" ± {error:{error_digits}}"
    )


def markdown(header, rows):
    """A table, without the columns that are empty."""
    columns = [column for column in zip(header, *rows, strict=True) if any(column[1:])]
    header, *rows = zip(*columns, strict=True)
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
