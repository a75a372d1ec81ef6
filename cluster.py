"""Data-parallel training by several processes, as the environment variable TF_CONFIG tells.

    TF_CONFIG='{"cluster": {"worker": ["host0:2222", "host1:2222"]},
                "task": {"type": "worker", "index": 0}}' python train.py ...

and the same command with index 1 on host1. All take part in each step, every worker with its share
of the batch; their gradients are summed, so they all have the weights that one process would have,
up to rounding. The chief, worker 0 unless a task of the type "chief" is named, writes the run.
"""

import contextlib
import functools
import json
import os
import signal
import sys

import cli
from cli import InputError


def task() -> dict | None:
    """The "task" of TF_CONFIG with "workers" (their number) and "chief"; None where it is not set.

    Raises:
        InputError: TF_CONFIG is not as TensorFlow describes it.
    """
    text = os.environ.get("TF_CONFIG")
    if not text:
        return None
    try:
        config = json.loads(text)
        cluster, (kind, index) = config["cluster"], (config["task"][k] for k in ("type", "index"))
        workers = sum(len(cluster.get(name, [])) for name in ("chief", "worker"))
        if kind not in ("chief", "worker") or not cluster[kind][index].rpartition(":")[2].isdigit():
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
        strategies.append(tf.distribute.MultiWorkerMirroredStrategy())

    handler = signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's own waits as long as C++
    try:
        cli.import_tensorflow(create)
    except (RuntimeError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"this process cannot join those of TF_CONFIG: {reason}") from None
    finally:
        signal.signal(signal.SIGINT, handler)
    return strategies[0]


@contextlib.contextmanager
def losses_told(strategy):
    """Turn TensorFlow's error at the loss of another worker into one line."""
    tf = cli.import_tensorflow()
    try:
        yield
    except tf.errors.OpError as error:
        if strategy is None:
            raise
        reason = " ".join(str(error).split(":")[0].split())
        raise InputError(
            f"another worker is gone, so this one ends; start all of them anew ({reason})"
        ) from None
