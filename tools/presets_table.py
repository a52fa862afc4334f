"""The table of the built-in presets, from their metadata."""

import json

from functions import FUNCTIONS

NAMES = ("energy", *FUNCTIONS)


def table(out):
    """The presets in a directory, as Markdown."""
    lines = [
        "| preset | computes | on | pieces | parameters | largest error |",
        "|---|---|---|---|---|---|",
    ]
    rows = {}
    for path in out.glob("sawtooth_*/metadata.json"):
        metadata = json.loads(path.read_text())
        name = path.parent.name.removeprefix("sawtooth_")
        if name in FUNCTIONS:
            low, high = (f"{end:.4g}" for end in metadata["interval"])
            cells = [
                metadata["function"],
                f"[{low}, {high}]".replace("3.142", "π"),
                f"{metadata['pieces']:,}",
                f"{metadata['parameter_count']:,}",
                f"{metadata['max_error']:.1e}",
            ]
        else:
            cells = [
                metadata["target"],
                "the demo's data",
                "",
                f"{metadata['parameter_count']:,}",
                f"test RMSE {metadata['test_rmse']:.3f}",
            ]
        rows[name] = f"| `sawtooth_{name}` | {' | '.join(cells)} |"
    return "\n".join(lines + [rows[name] for name in NAMES if name in rows])
