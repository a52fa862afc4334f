"""What `replace_dense` did, for the reader."""

from keras_sawtooth.sawtooth_dense import SawtoothDense
from keras_sawtooth.swap.carry_weights import replaced_activation


def replacement_table(replaced, left):
    """Aligned lines: every layer, what it was, what it is, and its parameters.

    Args:
        replaced: list of pairs (old layer, its replacement).
        left: list of pairs (layer that was left alone, reason).

    Returns:
        str.
    """
    rows = [("layer", "was", "is", "parameters")]
    for old, new in replaced:
        counts = f"{old.count_params():,} -> {new.count_params():,}"
        rows.append((_path(old), _was(old), _is(new, replaced), counts))
    for layer, reason in left:
        # Functions of tensors have no parameters.
        counts = f"{layer.count_params() if hasattr(layer, 'count_params') else 0:,}"
        rows.append((_path(layer), _was(layer), f"left alone: {reason}", counts))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = []
    for *words, counts in rows:
        cells = [word.ljust(width) for word, width in zip(words, widths, strict=False)]
        lines.append("  ".join([*cells, counts.rjust(widths[-1])]))
    return "\n".join(lines)


def _path(layer):
    # Layers without variables may have none, and functions of tensors have none.
    return getattr(layer, "path", None) or layer.name


def _was(layer):
    activation = getattr(layer, "activation", None)
    if activation is None:
        return type(layer).__name__
    name = getattr(activation, "__name__", type(activation).__name__)
    return f"{type(layer).__name__} {name}"


def _is(layer, replaced):
    if type(layer) is SawtoothDense:
        return f"SawtoothDense depth={layer.depth}"
    region = replaced_activation(layer)
    if layer is region:
        return f"RegionConstraint depth={region.depth}"
    users = sum(getattr(new, "activation", None) is region for _, new in replaced)
    shared = f", one for {users} layers" if users > 1 else ""
    return f"{type(layer).__name__} RegionConstraint depth={region.depth}{shared}"
