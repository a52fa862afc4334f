"""Files of results: a kill does not harm them, and what is damaged is named."""

import json


def write_whole(path, text):
    """`text` as a file: killed meanwhile, the old file stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(text)
    unfinished.replace(path)


def read_results(path, *names):
    """The dict in a JSON file, which has dicts under these names."""
    try:
        results = json.loads(path.read_text())
        if not isinstance(results, dict):
            raise ValueError("no object in braces")
        for name in names:
            if not isinstance(results.get(name), dict):
                raise ValueError(f"no object under {name!r}")
    # Undecodable bytes are a ValueError, too.
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged ({error}). Mend it, or delete it to compute its "
            f"results again."
        ) from error
    return results
