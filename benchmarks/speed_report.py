"""Tables and pictures of `speed.py`, from its results alone."""

from tables import markdown

# Largest ratios to `Dense(relu)` that are good enough, by phase and units:
# forward pass and training step under XLA.
TARGETS = {
    ("constrained", 256): (1.3, 1.4),
    ("constrained", 1024): (1.15, 1.2),
    ("constrained", 4096): (1.03, 1.05),
    ("released", 256): (2.0, 3.0),
    ("released", 1024): (1.5, 2.0),
    ("released", 4096): (1.1, 1.2),
}
TORCH_TARGETS = {"constrained": 1.5, "released": 3.0}
# Further temporaries of a training step, as multiples of the pre-activations.
MEMORY_TARGET = 3


def number(value, digits=2):
    return "" if value is None else f"{value:.{digits}f}"


def milliseconds(timing):
    return f"{1e3 * timing['seconds']:.3g} ms"


def temporaries(step, relu, units, batch):
    """Beyond those of relu, as multiples of the pre-activations in float32."""
    if "temp_bytes" not in step:
        return None
    return (step["temp_bytes"] - relu["temp_bytes"]) / (4 * units * batch)


def target(backend, mode, layer, units):
    """Targets of the forward pass, the step and the temporaries, or `None`."""
    phase = layer.split()[0]
    if phase not in TORCH_TARGETS:
        return None, None, None
    if backend == "torch":
        return None, TORCH_TARGETS[phase] if mode == "compiled" else None, None
    return *TARGETS.get((phase, units), (None, None)), MEMORY_TARGET


def compared(backend, mode, sizes):
    """Table of a comparison of layers at several sizes."""
    rows = []
    for size, layers in sizes.items():
        units, batch = map(int, size.split())
        for layer, programs in layers.items():
            forward, step = programs["forward"], programs["step"]
            relu = layers["relu"]["step"]
            targets = target(backend, mode, layer, units)
            low, high = step["quartiles"]
            rows.append(
                [
                    units,
                    batch,
                    layer,
                    milliseconds(forward),
                    number(forward["ratio"]),
                    number(targets[0]),
                    milliseconds(step),
                    number(step["ratio"]),
                    f"{low:.2f}-{high:.2f}",
                    number(targets[1]),
                    number(temporaries(step, relu, units, batch)),
                    number(targets[2], 0),
                    *(
                        number(step[cost] / relu[cost]) if cost in step else ""
                        for cost in ("flops", "bytes_accessed")
                    ),
                ]
            )
    header = ["units", "batch", "layer", "forward", "ratio", "target"]
    header += ["step", "ratio", "quartiles", "target", "temporaries", "target"]
    return markdown([*header, "flops", "bytes"], rows)


def modes(backend, times):
    return "\n\n".join(
        f"{backend}, {mode}\n\n{compared(backend, mode, sizes)}"
        for mode, sizes in times.items()
    )


def by_depth(results):
    """Of the growth with the depth: size, step of relu, `layers[kind][depth]`."""
    ((size, layers),) = results["depth"].items()
    kinds = {}
    for name, programs in layers.items():
        if name != "relu":
            kind, depth = name.split()
            kinds.setdefault(kind, {})[int(depth)] = programs
    return size, layers["relu"]["step"], kinds


def growth(backend, results):
    size, relu, kinds = by_depth(results)
    units, batch = map(int, size.split())
    rows = []
    for depth in kinds["constrained"]:
        row = [depth, 2**depth]
        for layers in kinds.values():
            programs = layers.get(depth)
            if programs is None:
                row += ["", "", ""]
                continue
            row += [number(programs[name]["ratio"]) for name in ("forward", "step")]
            row.append(number(temporaries(programs["step"], relu, units, batch)))
        rows.append(row)
    header = ["depth", "pieces"]
    for kind in kinds:
        header += [f"{kind}: forward", "step", "temporaries"]
    parts = [f"{units} units, batch {batch}\n\n{markdown(header, rows)}"]
    parts += [compared(backend, "jit", results[axis]) for axis in ("units", "batch")]
    return "\n\n".join(parts)


def peers(backend, results):
    missing = [f"{name}: {reason}" for name, reason in results["missing"].items()]
    return "\n\n".join([modes(backend, results["times"]), *missing])


def vgg(backend, results):
    counts = results["multiply_adds"]
    total, classifier = sum(counts.values()), counts["classifier"]
    rows = []
    for layer, programs in results["times"].items():
        added = results["sawtooth_multiply_adds"].get(layer.split()[-1], 0)
        step, forward = programs["step"], programs["forward"]
        rows.append(
            [
                layer,
                f"{added:,}",
                f"{100 * added / total:.5f} %",
                f"{100 * added / classifier:.4f} %",
                milliseconds(forward),
                number(forward["ratio"], 3),
                milliseconds(step),
                number(step["ratio"], 3),
                "-".join(number(q, 3) for q in step["quartiles"]),
            ]
        )
    header = ["layer", "multiply-adds added", "of the network", "of the classifier"]
    header += ["forward", "ratio", "classifier's step", "ratio", "quartiles"]
    first = f"Multiply-adds a picture: {total:,}, in the classifier {classifier:,}"
    return f"{first}\n\n{markdown(header, rows)}"


def startup(backend, results):
    alone, both = results["import"]["keras"], results["import"]["keras_sawtooth"]
    relu = results["steps"]["relu"]
    rows = [["import", f"{both:.2f} s", number(both / alone, 3), "", ""]]
    for layer, steps in results["steps"].items():
        row = [layer]
        for step in ("first", "second"):
            row += [f"{steps[step]:.3g} s", number(steps[step] / relu[step])]
        rows.append(row)
    header = ["", "first step", "ratio", "second step", "ratio"]
    return f"import keras: {alone:.2f} s\n\n{markdown(header, rows)}"


def gpu(backend, results):
    if "skipped" in results:
        return f"Skipped: {results['skipped']}"
    rows = []
    first = next(iter(results["bandwidth"].values()))
    for layer, rates in results["bandwidth"].items():
        row = [layer]
        for program, rate in rates.items():
            row += [f"{rate / 1e9:.0f} GB/s", f"{100 * rate / first[program]:.0f} %"]
        rows.append(row)
    header = ["RegionConstraint alone", "forward", "of the first"]
    header += ["step", "of the first"]
    times = [
        f"### {how}\n\n{modes(backend, sizes)}"
        for how, sizes in results["times"].items()
    ]
    return "\n\n".join([*times, markdown(header, rows)])


SECTIONS = {
    "layer": modes,
    "growth": growth,
    "peers": peers,
    "vgg": vgg,
    "startup": startup,
    "gpu": gpu,
}


def report(section, backend, entry):
    """Heading and tables of a section on a backend."""
    where = entry["environment"]
    versions = ", ".join(f"{k} {v}" for k, v in where["versions"].items())
    return (
        f"## {section}, {backend}\n\n"
        f"{where['date']}, {where['processor']}, {where['cores']} cores, "
        f"{where['device']}; {versions}; `{where['command']}`\n\n"
        f"{SECTIONS[section](backend, entry['results'])}\n"
    )


def draw(results, folder):
    """Pictures of the growth; the paths that were written."""
    if "growth" not in results:
        return []
    growth_results = results["growth"]["jax"]["results"]
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "speed_depth.png", folder / "speed_sizes.png"]
    for draw_one, path in zip((draw_depth, draw_sizes), paths, strict=True):
        figure = draw_one(growth_results)
        figure.savefig(path, dpi=150, bbox_inches="tight")
    return paths


def powers_of_two(axes, which):
    """A logarithmic axis, `"x"` or `"y"`, with plain numbers."""
    getattr(axes, f"set_{which}scale")("log", base=2)
    getattr(axes, f"{which}axis").set_major_formatter("{x:g}")


def draw_depth(results):
    from matplotlib.figure import Figure

    size, _, kinds = by_depth(results)
    units, batch = size.split()
    figure = Figure(figsize=(7, 4.5))
    axes = figure.subplots()
    for kind, label in (
        ("constrained", "SawtoothDense, constrained"),
        ("released", "SawtoothDense, released"),
        ("table", "table of pieces, searched"),
    ):
        ratios = {d: layer["step"]["ratio"] for d, layer in kinds[kind].items()}
        axes.plot(ratios.keys(), ratios.values(), "o-", label=label)
    depths = list(kinds["constrained"])
    axes.set(xlabel="depth", ylabel="training step / Dense(relu)", xticks=depths)
    axes.set_title(f"{units} units, batch {batch}")
    pieces = axes.twinx()
    pieces.plot(depths, [2**d for d in depths], ":", color="gray", label="pieces")
    pieces.set(ylabel="linear pieces per unit")
    for part in (axes, pieces):
        powers_of_two(part, "y")
    lines = axes.get_lines() + pieces.get_lines()
    axes.legend(lines, [line.get_label() for line in lines])
    return figure


def draw_sizes(results):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4))
    for axes, axis, position in zip(
        figure.subplots(1, 2, sharey=True), ("units", "batch"), (0, 1), strict=True
    ):
        sizes = results[axis]
        x = [int(size.split()[position]) for size in sizes]
        for layer, color in (("constrained 3", "C0"), ("released 3", "C1")):
            for program, style in (("forward", "o:"), ("step", "o-")):
                ratios = [layers[layer][program]["ratio"] for layers in sizes.values()]
                axes.plot(x, ratios, style, color=color, label=f"{layer}, {program}")
        fixed = next(iter(sizes)).split()[1 - position]
        other = "batch" if axis == "units" else "units"
        axes.set(xlabel=axis, title=f"{other} {fixed}")
        powers_of_two(axes, "x")
        powers_of_two(axes, "y")
        axes.axhline(1, color="gray", linewidth=0.8)
        axes.legend()
    figure.axes[0].set_ylabel("time / Dense(relu)")
    return figure
