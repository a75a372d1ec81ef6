"""Data-parallel training by several processes, configured by the environment variable TF_CONFIG.

    TF_CONFIG='{"cluster": {"worker": ["host0:2222", "host1:2222"]},
                "task": {"type": "worker", "index": 0}}' python train.py ...

and the same command with index 1 on host1. Each worker computes the gradients of its share of
every batch, and all add them up, so that all have the weights that one process would have, up to
rounding. The chief, worker 0 unless a task of the type "chief" is named, writes the run.
"""

import contextlib
import functools
import hashlib
import json
import os
import signal
import sys

from common import cli
from common.cli import InputError


def number() -> int:
    """This worker's number by TF_CONFIG, the chief's being 0; 0 also where there is one process.

    Raises:
        InputError: TF_CONFIG is not as TensorFlow describes it.
    """
    try:
        config = json.loads(os.environ.get("TF_CONFIG") or "{}")
        if not config:
            return 0
        kind, index = config["task"]["type"], config["task"]["index"]
        return int(index) + (kind == "worker") * len(config["cluster"].get("chief", []))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            'TF_CONFIG must be JSON like {"cluster": {"worker": ["host0:2222", "host1:2222"]}, '
            f'"task": {{"type": "worker", "index": 0}}}} ({type(error).__name__}: {error})'
        ) from None


def is_chief() -> bool:
    """Whether this process writes: one process alone, or the chief of several."""
    return number() == 0


@functools.cache
def join():
    """The strategy that joins this process to the others, or None without TF_CONFIG.

    Waits until every worker has connected. To be called before anything else starts TensorFlow.

    Raises:
        InputError: TF_CONFIG is wrong, or the process cannot take its place.
    """
    worker = number()
    if not json.loads(os.environ.get("TF_CONFIG") or "{}"):
        return None
    print(f"worker {worker}: waiting for the others (Ctrl-C ends it)", file=sys.stderr)
    strategies = []

    def create(tf):
        try:
            strategies.append(tf.distribute.MultiWorkerMirroredStrategy())
        except tf.errors.OpError as error:  # such as a port in use
            raise RuntimeError(error.message) from None

    handler = signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's own waits as long as C++
    try:
        cli.import_tensorflow(create)
    except (RuntimeError, ValueError, TypeError, KeyError, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"this process cannot join those of TF_CONFIG: {reason}") from None
    finally:
        signal.signal(signal.SIGINT, handler)
    return strategies[0]


@contextlib.contextmanager
def agreement(what: str):
    """Run the block, in which all workers train alike; one process alone just runs it.

    Raises:
        InputError: the workers are given different things to do, or one of them was lost.
    """
    strategy = join()
    if strategy is None:
        yield
        return
    tf = cli.import_tensorflow()
    lost = tf.errors.AbortedError, tf.errors.CancelledError
    lost += tf.errors.DeadlineExceededError, tf.errors.UnavailableError
    number = int.from_bytes(hashlib.sha256(what.encode()).digest()[:4])
    try:
        total = strategy.reduce("SUM", tf.constant(number, tf.int64), axis=None)
        if int(total) != number * strategy.num_replicas_in_sync:
            raise InputError(
                "the workers are given different options or data: start all of them alike"
            )
        yield
    except lost:
        raise InputError(
            "another worker has ended or is out of reach, so this one ends, too: start all anew"
        ) from None


def share(batch):
    """The part of a batch, a tensor (k,), that this worker takes; all of it for one process."""
    strategy = join()
    if strategy is None:
        return batch
    return batch[number() :: strategy.num_replicas_in_sync]


def combine(gradients, means, part):
    """The gradients summed, and means over the batch, from those of each worker's share.

    Args:
        gradients: list of tensors, each worker's part of the sum.
        means: list of means () over this worker's share.
        part: this worker's share of the batch, from 0 to 1.

    Returns:
        gradients and means that are equal on all workers; for one process as they were.
    """
    strategy = join()
    if strategy is None:
        return gradients, means

    import tensorflow as tf

    def add(*values):
        """All in one message; `all_reduce` needs copies on this worker's device."""
        values = [tf.identity(value) for value in values]
        return tf.distribute.get_replica_context().all_reduce("SUM", values)

    # A worker without an image has means that are NaN, and part 0.
    means = tf.math.multiply_no_nan(tf.stack(means), tf.cast(part, tf.float32))
    sums = strategy.run(add, (*gradients, means))
    *gradients, means = (strategy.experimental_local_results(value)[0] for value in sums)
    return gradients, tf.unstack(means)
