"""Training in several processes at once: how they join, and who reads which rows of each batch.

In each process the same script does the same: it calls `start`, builds the model, and trains. On the JAX backend Keras
then computes every step on the devices of all processes, as one machine would compute it. With one process, or on
another backend, all else here does nothing.
"""

import os
from dataclasses import dataclass

import keras

from bert_models.config import BertConfig
from bert_models.training.core_layouts import core_layouts
from bert_models.training.launch import ADDRESS, PROCESS, PROCESSES
from bert_models.training.leaving import leave_at_once_after_errors


@dataclass(frozen=True)
class Place:
    """Where this process is among all.

    Attributes:
        process: its number, from 0. Process 0 writes checkpoints and the learning curve.
        processes: how many there are.
        replicas: parts into which a batch is split: devices, or groups of devices that share a model's cores.
    """

    process: int = 0
    processes: int = 1
    replicas: int = 1

    def rows(self, batch_size: int) -> slice:
        """Rows of each batch that this process reads.

        Raises:
            ValueError: the devices cannot have equally many.

        >>> Place(process=1, processes=2, replicas=4).rows(32), Place(process=3, processes=4, replicas=2).rows(32)
        (slice(16, 32, None), slice(16, 32, None))
        """
        if batch_size % self.replicas:
            raise ValueError(
                f"{batch_size} rows are computed at once, which {self.replicas} devices or groups of devices cannot "
                f"share evenly: choose batch_size and accumulate so that {self.replicas} divides it."
            )
        shares = min(self.processes, self.replicas)  # with more processes than replicas, some read the same rows
        number, size = self.process * shares // self.processes, batch_size // shares
        return slice(number * size, (number + 1) * size)


def start(
    address: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    *,
    cluster: bool = False,
    seed: int | None = None,
) -> keras.distribution.DataParallel:
    """Join the other processes, and have Keras compute on the devices of all. It comes before anything is computed.

    Under `python -m bert_models.training.launch` it has been called already; to call it again changes
    nothing but a seed that is given.

    Args:
        address: "host:port" of process 0; None: of the environment variable `KERAS_DISTRIBUTION_JOB_ADDRESSES`, and
            without one there is just this process.
        processes, process: how many there are, and the number of this one, from 0; None: of the environment variables
            `KERAS_DISTRIBUTION_NUM_PROCESSES` and `KERAS_DISTRIBUTION_PROCESS_ID`.
        cluster: ask JAX, which knows these on TPU pods, under Slurm, Open MPI and Kubernetes.
        seed: for `keras.utils.set_random_seed`, since all processes have to draw the same weights; None: 0 at the first
            call, and as it is at a later one.

    Returns:
        The distribution of data over all devices, which is also set; at a later call what is set then.

    Raises:
        RuntimeError: the backend is not JAX; something was computed before; JAX does not know the cluster.

    Example:
        distribute.start("10.0.0.1:1234", processes=2, process=0)
        encoder = bert_models.build("tn_bert")
        pretrain(encoder, "data", "run", "tn_bert")
    """
    jax = _jax()
    address = address or os.environ.get(ADDRESS)
    if (address or cluster) and not jax.distributed.is_initialized():
        _join(jax, address, processes, process)
    found = keras.distribution.distribution()
    if found is None or seed is not None:
        keras.utils.set_random_seed(seed or 0)
    if found is not None:
        return found
    distribution = keras.distribution.DataParallel(devices=_devices(), auto_shard_dataset=False)
    keras.distribution.set_distribution(distribution)
    return distribution


def _join(jax, address: str | None, processes: int | None, process: int | None) -> None:
    numbers = [
        int(os.environ[name]) if given is None and name in os.environ else given
        for name, given in ((PROCESSES, processes), (PROCESS, process))
    ]
    if jax.config.jax_cpu_collectives_implementation in (None, "none"):  # as older versions of JAX have it
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(address, *numbers)
    except ValueError as error:
        raise RuntimeError(
            f"JAX does not know which processes there are ({error}); give the address of process 0, how many there "
            "are, and the number of this one."
        ) from error
    except RuntimeError as error:
        if "must be called before" not in str(error):
            raise
        raise RuntimeError("start() must come before anything is computed: call it first of all.") from error
    leave_at_once_after_errors()


def split_cores(config: BertConfig, parts: int) -> keras.distribution.ModelParallel:
    """After `start`: have the feed-forward cores of encoders built from here on split between devices.

    Args:
        config: of the encoder, see `core_layouts`.
        parts: devices between which each core is split. All are of one process; the batch is split between the groups.

    Returns:
        The distribution, which is also set.

    Raises:
        ValueError: a process's devices, or the cores, cannot be split so.

    Example:
        distribute.start()
        distribute.split_cores(PRESETS["tn_bert"].config, 2)
        encoder = bert_models.build("tn_bert")
    """
    devices, own = _devices(), _jax().local_device_count()
    if parts < 1 or own % parts:
        raise ValueError(f"parts must divide the {own} devices of each process, got {parts}.")
    mesh = keras.distribution.DeviceMesh((len(devices) // parts, parts), ("batch", "model"), devices)
    layouts = keras.distribution.LayoutMap(mesh)
    for path, axes in core_layouts(config, parts).items():
        layouts[path] = axes
    distribution = keras.distribution.ModelParallel(
        layout_map=layouts, batch_dim_name="batch", auto_shard_dataset=False
    )
    keras.distribution.set_distribution(distribution)
    return distribution


def place() -> Place:
    """Where this process is, by the distribution that is set."""
    found = keras.distribution.distribution()
    if found is None or keras.backend.backend() != "jax":
        return Place()
    mesh, jax = found.device_mesh, _jax()
    replicas = mesh.shape[list(mesh.axis_names).index(found.batch_dim_name)]
    return Place(jax.process_index(), jax.process_count(), int(replicas))


def check(model: keras.Model, accumulate: int = 1) -> None:
    """Refuse what Keras could not train, before it says so in words of its own.

    Args:
        accumulate: parts in which each batch is computed.

    Raises:
        ValueError: the model was built before the distribution was set; or one of TensorFlow's strategies is in force
            under which Keras 3 cannot train, or not in parts.
    """
    backend, found = keras.backend.backend(), keras.distribution.distribution()
    if backend == "tensorflow":
        _check_strategy(accumulate)
    if backend != "jax" or found is None:
        return
    for variable in model.variables:
        if len(variable.value.sharding.device_set) != found.device_mesh.devices.size:
            raise ValueError(
                f"{variable.path} is not on all {found.device_mesh.devices.size} devices: build the encoder after "
                "distribute.start() or keras.distribution.set_distribution()."
            )


def _check_strategy(accumulate: int) -> None:
    import tensorflow as tf

    strategy = tf.distribute.get_strategy()
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        raise ValueError(
            "Keras 3 cannot `fit` under MultiWorkerMirroredStrategy: take the JAX backend for several machines, or "
            "MirroredStrategy on one."
        )
    if strategy.num_replicas_in_sync > 1 and accumulate > 1:
        raise ValueError(
            f"under {type(strategy).__name__} Keras 3 cannot accumulate gradients, got accumulate={accumulate}: take 1 "
            "and a smaller batch, or the JAX backend."
        )


def _devices() -> list[str]:
    """All devices by Keras's names. Those of one process follow each other, as do the rows that it reads."""
    found = sorted(_jax().devices(), key=lambda device: (device.process_index, device.id))
    return [f"{device.platform}:{device.id}" for device in found]


def _jax():
    if keras.backend.backend() != "jax":
        raise RuntimeError(
            f"several processes or devices need the JAX backend, this is {keras.backend.backend()}: set the environment"
            " variable KERAS_BACKEND=jax."
        )
    import jax

    return jax
