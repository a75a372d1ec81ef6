"""Data-parallel training by several processes, as the environment variable TF_CONFIG tells.

    TF_CONFIG='{"cluster": {"worker": ["host0:2222", "host1:2222"]},
                "task": {"type": "worker", "index": 0}}' python train.py ...

and the same command with index 1 on host1. All take part in each step, every worker with its share
of the batch; their gradients are summed, so they all have the weights that one process would have,
up to rounding. The chief, worker 0 unless a task of the type "chief" is named, writes the run.
"""

import contextlib
import functools
import hashlib
import json
import os
import signal
import sys

import cli
from cli import InputError


def task() -> dict | None:
    """The "task" of TF_CONFIG with "workers" (their number) and "chief"; None without a cluster.

    Raises:
        InputError: TF_CONFIG is not as TensorFlow describes it.
    """
    text = os.environ.get("TF_CONFIG")
    if not text:
        return None
    try:
        config = json.loads(text)
        if config == {}:
            return None
        cluster, (kind, index) = config["cluster"], (config["task"][k] for k in ("type", "index"))
        workers = sum(len(cluster.get(name, [])) for name in ("chief", "worker"))
        known = kind in ("chief", "worker") and type(index) is int and index >= 0
        if not known or not cluster[kind][index].rpartition(":")[2].isdigit():
            raise ValueError(f"no worker is {kind} {index}")
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise InputError(
            'TF_CONFIG must be JSON like {"cluster": {"worker": ["host0:2222", "host1:2222"]}, '
            f'"task": {{"type": "worker", "index": 0}}}} ({type(error).__name__}: {error})'
        ) from None
    chief = kind == "chief" or (index == 0 and "chief" not in cluster)
    return dict(type=kind, index=index, workers=workers, chief=chief)


@functools.cache
def join():
    """The strategy that joins this process to the others, or None without TF_CONFIG.

    Waits until all have come. To be called before anything else starts TensorFlow.

    Raises:
        InputError: TF_CONFIG is wrong, or the process cannot take its place.
    """
    ours = task()
    if not ours:
        return None
    if ours["workers"] > 1:
        print(
            f"{ours['type']} {ours['index']} of {ours['workers']} workers: waiting for the others "
            "(Ctrl-C ends it)",
            file=sys.stderr,
        )
    strategies = []

    def create(tf):
        try:
            strategies.append(tf.distribute.MultiWorkerMirroredStrategy())
        except tf.errors.OpError as error:  # such as a port in use
            raise RuntimeError(error.message) from None

    handler = signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's own waits as long as C++
    try:
        cli.import_tensorflow(create)
    except (RuntimeError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"this process cannot join those of TF_CONFIG: {reason}") from None
    finally:
        signal.signal(signal.SIGINT, handler)
    return strategies[0]


def agree(strategy, what: str) -> None:
    """Raise InputError, on all workers, unless all of them are told to do the same."""
    tf = cli.import_tensorflow()
    number = int.from_bytes(hashlib.sha256(what.encode()).digest()[:4])

    total = strategy.reduce("SUM", tf.constant(number, tf.int64), axis=None)
    if int(total) != number * strategy.num_replicas_in_sync:
        raise InputError("the workers are given different options or data: start all of them alike")


@contextlib.contextmanager
def losses_told(strategy):
    """Turn TensorFlow's error at the loss of another worker into one line."""
    tf = cli.import_tensorflow()
    try:
        yield
    except (
        tf.errors.AbortedError,
        tf.errors.CancelledError,
        tf.errors.DeadlineExceededError,
        tf.errors.UnavailableError,
    ):
        if strategy is None:
            raise
        raise InputError(
            "another worker has ended or is out of reach, so this one ends, too: start all anew"
        ) from None
