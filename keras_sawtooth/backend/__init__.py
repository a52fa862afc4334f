"""What is written for one backend: mostly derivatives, of which `hot_path.py` chooses.

`current` is the module for the backend that Keras runs on. Every such module has

* `triangle(w, peak)`: `sawtooth.triangle` with one sum for the gradient of a peak;
* `xla_on_cpu()`: whether XLA now compiles for a CPU;
* `can_fuse(z, *parameters)`: whether what `fused` makes can take them now;
* `init_scope()`: a context in which variables may start at values of others,
  also while a function is traced;
* `cached`: `functools.cache`, for functions that make functions, where it is of use;
* `compiled_on_jax(function)`: on JAX `function` as one program, also where nothing
  else is jitted;
* `traced_once(function)`: on TensorFlow `function`, traced once for all layers of the
  same shapes;

and where these say that they are of use

* `SMALLEST_ROWS`: how many rows a block has at least;
* `in_row_blocks(function, number)`: `function`, with derivatives block by block of the
  batch, and on TensorFlow traced once;
* `with_gradients(function, twin, gradients)`: `function` with what
  `gradients(*arguments, dy)` returns, and other derivatives of `twin`, an equal
  function;
* `gradients_in_one_loop(function, *arguments_and_dy)`: gradients of `function`, with
  all their sums over the batch in one loop, which all cores share;
* `on_few_cores()`: whether a faster loop on one core is the better one;
* `hidden_layers_in_loop(hidden, kernel, bias)`: `relu_network.hidden_layers` as a loop
  over the layers;
* `fused(function, name, domain)`: `function`, which is the `"sawtooth"` or the
  `"relu_network"` on a domain, with its derivatives in one GPU kernel, and its values
  in another where that is faster, or on torch in one operator each that goes through
  blocks on a CPU. JAX makes kernels of `function`, torch has operators by `name`.
"""

import keras

__all__ = ["current"]

if keras.backend.backend() == "jax":
    from keras_sawtooth.backend import jax as current
elif keras.backend.backend() == "tensorflow":
    from keras_sawtooth.backend import tensorflow as current
elif keras.backend.backend() == "torch":
    from keras_sawtooth.backend import torch as current
else:
    raise ImportError(
        "keras_sawtooth needs TensorFlow, JAX or PyTorch: set the environment variable "
        "KERAS_BACKEND to tensorflow, jax or torch before Keras is imported. "
        f"Received: {keras.backend.backend()!r}"
    )
