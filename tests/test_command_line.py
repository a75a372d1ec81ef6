"""The scripts as commands: what they refuse and how, help, and Ctrl-C."""

import inspect
import os
import re
import select
import signal
import subprocess
import sys
import time

import pytest
from conftest import script, tree

import attack
import train
from cli import ROOT

DIGITS = ["--dataset", "digits"]
TRAIN = [
    (
        ["--robust", "--eps", "-0.1"],
        "--eps: needs a finite number of at least 0 (several apart by spaces), not '-0.1'",
    ),
    (
        ["--robust", "--eps", "nan"],
        "--eps: needs a finite number of at least 0 (several apart by spaces), not 'nan'",
    ),
    (
        ["--robust", "--eps", "inf"],
        "--eps: needs a finite number of at least 0 (several apart by spaces), not 'inf'",
    ),
    (["--robust", "--eps", "0.1", "big"], "--eps: needs a finite number"),
    (["--robust", "--eps"], "--eps: expected at least one argument"),
    (["--eps", "0.1"], "need --robust"),
    (["--norm", "2"], "need --robust"),
    (["--box"], "need --robust"),
    (["--robust", "--norm", "2", "--box"], "--box is implemented for --norm inf, not for 2"),
    (["--robust", "--norm", "3"], "--norm: invalid choice"),
    (["--epochs", "0"], "--epochs: needs a whole number of at least 1, not '0'"),
    (["--epochs", "1.5"], "--epochs: needs a whole number of at least 1, not '1.5'"),
    (["--batch-size", "0"], "--batch-size: needs a whole number of at least 1, not '0'"),
    ([*DIGITS, "--batch-size", "241"], "larger than the training set of digits-0-1: choose at"),
    (["--learning-rate", "0"], "--learning-rate: needs a finite number above 0, not '0'"),
    (["--learning-rate", "nan"], "--learning-rate: needs a finite number above 0, not 'nan'"),
    (["--momentum", "1"], "--momentum: needs a number from 0 to below 1, not '1'"),
    (["--momentum", "nan"], "--momentum: needs a number from 0 to below 1, not 'nan'"),
    (["--seed", "-1"], "--seed/--seeds: needs a whole number"),
    (["--seeds", "0", str(2**32)], "--seed/--seeds: needs a whole number"),
    (["--digits", "3", "12"], "--digits: needs a digit from 0 to 9, not '12'"),
    (["--digits", "3"], "--digits: expected 2 arguments"),
    ([*DIGITS, "--digits", "3", "3"], "two different digits, not 3 twice"),
    (["--dataset", "cifar"], "--dataset: invalid choice"),
    (["--mnist-dir", "absent"], "--mnist-dir absent lacks train-images-idx3-ubyte.gz"),
    ([*DIGITS, "--mnist-dir", "absent"], "--mnist-dir goes with --dataset mnist"),
    (["--recipe", "best"], "--recipe: invalid choice"),
    (["--recipe", "optimal"], "--recipe: invalid choice"),
    (["--loss", "square"], "--loss: invalid choice"),
    (["--dropout", "0.5"], "unrecognized arguments: --dropout"),
    (["--epoch", "3"], "unrecognized arguments: --epoch"),
    (["robust"], "unrecognized arguments: robust"),
]
ATTACK = [
    ([], "no runs in"),
    (["--runs", "regular"], "no runs in"),
    (["--runs"], "--runs: expected at least one argument"),
    (["--eps-max", "0"], "--eps-max: needs a finite number above 0, not '0'"),
    (["--eps-max", "-1"], "--eps-max: needs a finite number above 0, not '-1'"),
    (["--eps-max", "nan"], "--eps-max: needs a finite number above 0, not 'nan'"),
    (["--eps-max", "inf"], "--eps-max: needs a finite number above 0, not 'inf'"),
    (["--eps-max", "half"], "--eps-max: needs a finite number above 0, not 'half'"),
    (["--eps-steps", "0"], "--eps-steps: needs a whole number of at least 1, not '0'"),
    (["--run", "regular"], "unrecognized arguments: --run"),
    (["--norm", "3"], "--norm: invalid choice"),
]
COMMANDS = [("train.py", *row) for row in TRAIN] + [("attack.py", *row) for row in ATTACK]


@pytest.mark.parametrize(("name", "arguments", "message"), COMMANDS)
def test_bad_command(tmp_path, name, arguments, message):
    """It ends with status 2 and one line that says what is wrong, and writes nothing."""
    done = script(name, *arguments, "--results", tmp_path / "results")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"{name}: error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [("train.py", DIGITS, "cannot write to --results"), ("attack.py", [], "no runs in")],
)
def test_results_below_a_file(tmp_path, name, arguments, message):
    (tmp_path / "file").write_text("kept")
    done = script(name, *arguments, "--results", tmp_path / "file" / "results")
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert tree(tmp_path) == {"file": b"kept"}


@pytest.mark.parametrize(("module", "name"), [(train, "train.py"), (attack, "attack.py")])
def test_help_and_defaults(module, name):
    """Every argument of main is an option that --help explains, with the same default."""
    done = script(name, "--help", env=os.environ | {"COLUMNS": "100"})
    assert (done.returncode, done.stderr) == (0, "")
    options = done.stdout.partition("options:\n")[2]
    parameters = dict(inspect.signature(module.main).parameters)
    parameters.pop("callbacks", None)  # objects, which no command line can name
    for parameter in parameters:
        option = "--" + parameter.removesuffix("_named").replace("_", "-")
        assert re.search(rf"^  (--seed.*, )?{option}\b", options, re.MULTILINE)
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    assert vars(module._parser().parse_args([])) == defaults


def test_importing_the_scripts_imports_no_tensorflow():
    code = "import sys, attack, train; print({'tensorflow', 'keras'} & set(sys.modules))"
    done = script("-c", code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "set()\n", "")


def test_from_training_to_figures(tmp_path):
    """The two commands of a first visit, on the small digits and with few epochs."""
    small = [*DIGITS, "--epochs", "2", "--results", tmp_path]
    done = script("train.py", "--robust", "--eps", "0.05", "-0.0", *small)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == [
        "robust-eps0.05-epochs2",
        "robust-eps0-epochs2",
    ]
    done = script("attack.py", "--results", tmp_path)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert "robust-eps0.05-epochs2" in done.stdout
    assert len(list((tmp_path / "digits-0-1" / "attack" / "linf").iterdir())) == 2


def test_interrupted_training_leaves_nothing(tmp_path):
    """Ctrl-C after the first epoch, which the progress bar on a terminal tells."""
    termios = pytest.importorskip("termios", reason="there are no pseudo-terminals here")
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (25, 200))
    command = [sys.executable, "train.py", *DIGITS, "--epochs", "100000", "--results", tmp_path]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=theirs,
        # Where the tests run in the background, children inherit that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    shown, deadline = b"", time.monotonic() + 120

    def read() -> bytes:
        """What the terminal shows next; nothing after a second of silence."""
        return os.read(ours, 4096) if select.select([ours], [], [], 1)[0] else b""

    try:
        while b"loss=" not in shown and process.poll() is None and time.monotonic() < deadline:
            shown += read()
        assert b"loss=" in shown
        process.send_signal(signal.SIGINT)
        while process.poll() is None and time.monotonic() < deadline:
            shown += read()
        shown += read()
        out, _ = process.communicate(timeout=60)
        assert (process.returncode, out) == (130, b"")
        assert b"train.py: interrupted" in shown
        assert b"Traceback" not in shown
        assert list(tmp_path.iterdir()) == []
    finally:
        process.kill()
        process.communicate()
        os.close(ours)
        os.close(theirs)
