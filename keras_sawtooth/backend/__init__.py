"""What is written for one backend: the derivatives that `hot_path.py` chooses from.

Every backend has a module with

* `triangle(w, peak)`: `sawtooth.triangle` with one sum for the gradient of a peak;
* `compiled_for_cpu()`: whether XLA compiles for a CPU here and now;
* `fits_one_kernel(z, *parameters)`: whether a kernel of our own can take them, here and
  now, or on torch an operator that stands for one;
* `init_scope()`: a context in which variables may start at values of others,
  also while a function is traced;
* `cached_on_jax`: on JAX `functools.cache`, for functions that make functions;

and where these say that they are of use

* `in_row_blocks(function, differentiated, number)`: `function`, with the derivatives of
  `differentiated`, an equal function, block by block of the batch;
* `in_channel_blocks(function, number)`: the same, block by block of the channels;
* `loop(layer, hidden, *weights)`: the layers of a network as a loop;
* `sawtooth_kernels(function, domain)`, `relu_network_kernels(function, domain)`:
  `function`, with its values and its derivatives in one kernel each.
"""
