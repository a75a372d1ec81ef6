"""Kill a child process with SIGKILL, again and again, and look at what it leaves.

    python tests/killer.py write|file|attack|train [RANDOM]

The child works on a folder of results. It is killed before its first file operation there, then
before its second, and so on until it comes to its end; then RANDOM times at a random moment.
After each kill every folder of results must be whole, byte for byte as undisturbed work leaves it,
and none may be missing that was there before. Prints the number of kills.

A script of its own, as it forks: that needs a process in which TensorFlow has no threads yet.
"""

import importlib
import itertools
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import attack
import cli
import data
import files
import plots
import runs

OPERATIONS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"}
DIGITS = data.load("digits")


def write(results: Path, version: int) -> None:
    """Two runs of random weights, of both versions in the same places."""
    draw = np.random.default_rng(version)
    names = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
    for eps in (0.1, 0.2):
        history = {name: draw.random(3).tolist() for name in names}
        steps = {name: draw.random(9) for name in ("loss", "active", "w_l1", "pixels")}
        settings, facts = runs.article(DIGITS.name, eps), runs.facts(DIGITS, {})
        runs.save(results, settings, facts, draw.random(64), draw.random(), history, steps=steps)


def attack_runs(results: Path, version: int) -> None:
    with mock.patch.object(plots, "draw", return_value=[]):
        attack.main(results=results, eps_steps=10 * (1 + version))


def write_file(results: Path, version: int) -> None:
    """As figures, tables and the cache are written."""
    with files.whole_file(results / DIGITS.name / "figures" / "training.png") as path:
        path.write_bytes(bytes([version]) * 100_000)


def train(results: Path, version: int) -> None:
    """One version alone: the same command makes the same bytes."""
    import train

    train.main(dataset="digits", epochs=2, results=results, quiet=True)


WORK = {"write": write, "attack": attack_runs, "file": write_file, "train": train}


def fork(work, results: Path, versions, kill_before: int | None = None) -> int:
    """A child that does the work in silence; with `kill_before`, killed before that operation."""
    if child := os.fork():
        return child
    done = itertools.count()

    def hook(event, arguments):
        if event in OPERATIONS:
            inside = str(arguments[0]).startswith(str(results))
            removal = event in ("os.remove", "os.rmdir") and arguments[-1] != -1  # by handle
            if (inside or removal) and next(done) == kill_before:
                os.kill(os.getpid(), signal.SIGKILL)

    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if kill_before is not None:
        sys.addaudithook(hook)
    status = 1
    try:
        for version in versions:
            work(results, version)
        status = 0
    finally:
        os._exit(status)


def killed(child: int) -> bool:
    """Wait for the child's end. Raises: it failed by itself."""
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status not in (0, -signal.SIGKILL):
        raise SystemExit(f"the child failed with exit status {status}")
    return status != 0


def folders(results: Path) -> dict[str, dict[str, bytes]]:
    """The folders that hold files, hidden ones apart, with the bytes of their files."""
    found = {}
    for path in results.rglob("*"):
        name = path.relative_to(results)
        if path.is_file() and not any(part.startswith(".") for part in name.parts):
            found.setdefault(str(name.parent), {})[name.name] = path.read_bytes()
    return found


def main(name: str, at_random: int = 0) -> None:
    with tempfile.TemporaryDirectory() as folder:
        results, work = Path(folder), WORK[name]
        if name == "attack":
            write(results, 0)
        if name == "train":
            import_tensorflow_without_starting_it()
        whole, started = [folders(results)], time.monotonic()
        for version in (1, 0):
            assert not killed(fork(work, results, [version]))
            whole.append(folders(results))
        seconds = (time.monotonic() - started) / 2

        def check() -> None:
            for parent in [results, *results.rglob("*/")]:
                files.recover(parent)  # as the next command does where it reads or writes
            assert not list(results.rglob(".*")), list(results.rglob(".*"))
            now = folders(results)
            assert now.keys() == whole[-1].keys(), set(whole[-1]) ^ set(now)
            for place, found in now.items():
                assert found in [state[place] for state in whole if place in state], place

        kills = 0
        while killed(fork(work, results, [kills % 2], kills)):
            check()
            kills += 1
        for _ in range(at_random):
            child = fork(work, results, itertools.cycle((1, 0)))
            time.sleep(random.uniform(0, 2 * seconds))
            os.kill(child, signal.SIGKILL)
            assert killed(child)
            check()
            kills += 1
        print(f"{name}: killed {kills} times, all whole")


def import_tensorflow_without_starting_it() -> None:
    """For the children; TensorFlow starts threads only when it is first used."""
    os.environ |= cli.TENSORFLOW
    for name in ("tensorflow", "keras", "model", "losses"):
        importlib.import_module(name)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
