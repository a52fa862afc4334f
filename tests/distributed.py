"""Train through a release in one process of a distributed run, for its test.

    python distributed.py WORKFLOW FILE [PROCESS PORT]

Writes every variable to FILE: its value, and what the devices of this process
hold of it. Computes in float64: in float32 the order of a sum may decide on which
side of a kink a sample falls, and Adam enlarges the difference.
"""

import contextlib
import sys
from functools import partial

import keras
import numpy as np

import keras_sawtooth as ks

EPOCHS, RELEASE, BATCH = 4, 2, 16
CASES = [("tied", "SGD"), ("free", "Adam")]


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 3))
    return x, np.sin(2 * x[:, :1]) * x[:, 1:2]


def build(scales):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((3,)),
            ks.SawtoothDense(16, depth=2, scales=scales),
            ks.SawtoothDense(8, depth=2, scales=scales),
            keras.layers.Dense(1),
        ]
    )


def fit(x, y, batch_size, scope, shards):
    """All cases with `fit`, each in a new `scope(scales)`."""
    results = {}
    for scales, name in CASES:
        # The names count from the start again; a distribution is forgotten too.
        keras.utils.clear_session()
        with scope(scales):
            model = build(scales)
            model.compile(
                keras.optimizers.SGD(1e-2, momentum=0.9)
                if name == "SGD"
                else keras.optimizers.Adam(1e-2),
                "mse",
            )
        history = model.fit(
            x,
            y,
            batch_size=batch_size,
            epochs=EPOCHS,
            shuffle=False,
            verbose=0,
            callbacks=[ks.ReleaseConstraints(epoch=RELEASE)],
        ).history
        assert history["constrained"] == [1.0] * RELEASE + [0.0] * (EPOCHS - RELEASE)
        case = f"{scales}-{name}"
        results[f"{case}:loss"] = np.array(history["loss"])
        for variable in model.variables + model.optimizer.variables:
            key = f"{case}:{variable.path}"
            results[f"{key}:value"], results[f"{key}:shards"] = shards(variable)
    return results


# JAX


def jax_devices(number):
    import jax

    jax.config.update("jax_num_cpu_devices", number)


def jax_processes(process, port):
    import jax

    jax.config.update("jax_num_cpu_devices", 1)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    keras.distribution.initialize(f"127.0.0.1:{port}", 2, process)


def jax_shards(variable):
    from jax.experimental import multihost_utils

    value = multihost_utils.process_allgather(variable.value, tiled=True)
    return value, np.stack([shard.data for shard in variable.value.addressable_shards])


def jax_fit(x, y, batch_size, distribution):
    @contextlib.contextmanager
    def scope(scales):
        keras.distribution.set_distribution(distribution(scales))
        yield

    return fit(x, y, batch_size, scope, jax_shards)


def model_parallel(shape, **arguments):
    def distribution(scales):
        mesh = keras.distribution.DeviceMesh(shape, ("batch", "model"))
        return keras.distribution.ModelParallel(
            layout_map=ks.layout_map(mesh, scales=scales), **arguments
        )

    return distribution


def jax_single(*_):
    return jax_fit(*data(), BATCH, lambda scales: None)


def jax_data_parallel(*_):
    jax_devices(8)
    return jax_fit(*data(), BATCH, lambda scales: keras.distribution.DataParallel())


def jax_model_parallel(*_):
    jax_devices(8)
    return jax_fit(*data(), BATCH, model_parallel((2, 4)))


def jax_data_parallel_processes(process, port):
    jax_processes(process, port)
    # Every process brings its half of every batch.
    x, y = (
        a.reshape(-1, 2, BATCH // 2, a.shape[1])[:, process].reshape(-1, a.shape[1])
        for a in data()
    )
    return jax_fit(
        x,
        y,
        BATCH // 2,
        lambda scales: keras.distribution.DataParallel(auto_shard_dataset=False),
    )


def jax_model_parallel_processes(process, port):
    jax_processes(process, port)
    return jax_fit(*data(), BATCH, model_parallel((1, 2), auto_shard_dataset=False))


def jax_indivisible(*_):
    """What Keras says of 6 units on 4 devices."""
    jax_devices(4)
    keras.distribution.set_distribution(model_parallel((1, 4))("tied"))
    try:
        ks.SawtoothDense(6).build((None, 3))
    except ValueError as error:
        return {"error": str(error)}


# TensorFlow


def tensorflow_shards(variable):
    copies = getattr(variable.value, "values", [variable.value])
    return variable.value.numpy(), np.stack([copy.numpy() for copy in copies])


def tensorflow_single(*_):
    return fit(
        *data(), BATCH, lambda scales: contextlib.nullcontext(), tensorflow_shards
    )


def tensorflow_mirrored(*_):
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * 2
    )
    # One for all cases: two strategies number their collective operations alike.
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    return fit(*data(), BATCH, lambda scales: strategy.scope(), tensorflow_shards)


# torch


def torch_train(process, processes, wrap):
    """All cases with a loop written by hand, as in Keras' guide for torch."""
    import torch

    x, y = data()
    dataset = torch.utils.data.TensorDataset(*map(torch.from_numpy, (x, y)))
    sampler = torch.utils.data.distributed.DistributedSampler(
        dataset, num_replicas=processes, rank=process, shuffle=False
    )
    batches = torch.utils.data.DataLoader(
        dataset, sampler=sampler, batch_size=BATCH // processes
    )
    results = {}
    for scales, name in CASES:
        keras.utils.clear_session()
        model = wrap(build(scales))
        make = {
            "SGD": partial(torch.optim.SGD, lr=1e-2, momentum=0.9),
            "Adam": partial(torch.optim.Adam, lr=1e-2),
        }[name]
        optimizer = make(model.parameters())
        for epoch in range(EPOCHS):
            if epoch == RELEASE:
                keras_model = getattr(model, "module", model)
                ks.release(keras_model)
                model = wrap(keras_model)
                state = optimizer.state
                optimizer = make(model.parameters())
                optimizer.state.update(
                    {p: state[p] for p in model.parameters() if p in state}
                )
            for inputs, targets in batches:
                optimizer.zero_grad()
                torch.nn.functional.mse_loss(model(inputs), targets).backward()
                optimizer.step()
        for variable in getattr(model, "module", model).trainable_variables:
            key = f"{scales}-{name}:{variable.path}"
            state = optimizer.state[variable.value]
            tensors = {
                "": variable.value,
                **{f"/{slot}": state[slot] for slot in state},
            }
            for slot, tensor in tensors.items():
                value = tensor.detach().numpy()
                results[f"{key}{slot}:value"] = value
                results[f"{key}{slot}:shards"] = value[None]
    return results


def torch_single(*_):
    return torch_train(0, 1, lambda model: model)


def torch_ddp(process, port):
    import torch

    torch.distributed.init_process_group(
        "gloo",
        init_method=f"tcp://127.0.0.1:{port}",
        rank=process,
        world_size=2,
    )
    results = torch_train(process, 2, torch.nn.parallel.DistributedDataParallel)
    torch.distributed.destroy_process_group()
    return results


if __name__ == "__main__":
    keras.config.set_floatx("float64")
    if keras.backend.backend() == "jax":
        import jax

        jax.config.update("jax_enable_x64", True)
    workflow, file, *place = sys.argv[1:]
    np.savez(file, **globals()[workflow](*map(int, place)))
