"""Draw docs/images/waves.png: the waves of depth 3, scaled, and their sum."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from keras import ops

from keras_sawtooth import sawtooth

PEAKS = [[0.4], [0.6], [0.45], [0.5]]


def main():
    peaks = ops.convert_to_tensor(PEAKS, "float32")
    scales = sawtooth.tied_scales(ops.ones(1), peaks)
    u = np.linspace(0, 1, 4001, dtype="float32")[:, None]
    waves = sawtooth.waves(ops.convert_to_tensor(u), peaks[:3])
    waves = [ops.convert_to_numpy(s * w) for s, w in zip(scales, waves, strict=True)]
    figure, axes = plt.subplots(
        1, 4, figsize=(10, 2.4), sharey=True, layout="constrained"
    )
    for i, (axis, wave) in enumerate(zip(axes[:3], waves, strict=True)):
        axis.plot(u, wave, "C0")
        axis.set_title(f"$s_{i} W_{i}$: {2 ** (i + 1)} pieces")
    axes[3].plot(u, sum(waves), "C1")
    axes[3].set_title("their sum: 8 pieces")
    for axis in axes:
        axis.set_xlabel("u")
        axis.grid(alpha=0.3)
    figure.savefig(Path(__file__).parents[1] / "docs" / "images" / "waves.png", dpi=110)


if __name__ == "__main__":
    main()
