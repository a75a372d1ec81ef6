"""The scripts as commands: what they refuse and how, help, and Ctrl-C."""

import importlib
import inspect
import os
import re
import runpy
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import script, tree

import cli
import runs
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
    (["--check", "--norm", "2"], "--check takes the balls and radii from the stored numbers"),
    (["--check", "--eps-max", "0.1"], "--check takes the balls and radii from the stored numbers"),
]
OPTIMUM = [
    ([], "the following arguments are required: --eps"),
    (["--eps"], "--eps: expected at least one argument"),
    (["--eps", "-0.1"], "a finite number of at least 0"),
    (["--eps", "0.1", "nan"], "a finite number of at least 0"),
    (["--eps", "inf"], "a finite number of at least 0"),
    (["--eps", "0.1", "--dataset", "digits", "--digits", "3", "3"], "not 3 twice"),
    (["--eps", "0.1", "--norm", "2"], "unrecognized arguments: --norm 2"),
    (["--eps", "0.1", "--mnist-dir", "absent"], "--mnist-dir absent lacks"),
]
COMMANDS = [
    *[("train.py", *row) for row in TRAIN],
    *[("attack.py", *row) for row in ATTACK],
    *[("optimum.py", *row) for row in OPTIMUM],
    ("claims.py", [], "no data set in"),
    ("claims.py", ["noise"], "unrecognized arguments: noise"),
    ("masking.py", ["--digits", "1"], "--digits: expected 2 arguments"),
    ("plots.py", [], "nothing to draw in"),
    ("plots.py", ["accuracy-noise"], "no figure accuracy-noise; there are: hinge_loss"),
    ("tables.py", [], "the tables need the attacked run regular"),
    ("benchmark.py", ["--parts", "sleep"], "--parts: invalid choice: 'sleep'"),
]
SCRIPTS = sorted({name for name, *_ in COMMANDS})
REQUIRED = {"optimum.py": ["--eps", "0.1"]}


def check_refused(name, message, status, out, err):
    """It ends with status 2 and one line that says what is wrong."""
    assert (status, out) == (2, "")
    assert err.startswith(f"{name}: error: ")
    assert message in err
    assert err.count("\n") == 1


@pytest.fixture
def run_script(monkeypatch, capsys):
    """Run a script in this process as `python NAME *arguments` would: status, stdout, stderr."""

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        monkeypatch.setattr(signal, "signal", lambda *arguments: None)  # Ctrl-C stays pytest's
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(ROOT / name), run_name="__main__")
        return ended.value.code, *capsys.readouterr()

    return run


@pytest.fixture(scope="module", autouse=True)
def training(tmp_path_factory):
    """A training on a terminal, started before the tests of this file, as it takes seconds to.

    Attributes: process, terminal (the handle to read), results (its folder).
    """
    if not hasattr(os, "openpty"):
        yield None
        return
    import termios

    results, (ours, theirs) = tmp_path_factory.mktemp("results"), os.openpty()
    termios.tcsetwinsize(theirs, (25, 200))
    process = subprocess.Popen(
        [sys.executable, "train.py", *DIGITS, "--epochs", "100000", "--results", results],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=theirs,
        # Where the tests run in the background, children inherit that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    yield SimpleNamespace(process=process, terminal=ours, results=results)
    process.kill()
    process.communicate()
    os.close(ours)
    os.close(theirs)


@pytest.mark.parametrize(("name", "arguments", "message"), COMMANDS)
def test_bad_command(tmp_path, run_script, name, arguments, message):
    """Refused as above, and nothing is written."""
    check_refused(name, message, *run_script(name, *arguments, "--results", tmp_path / "results"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("option", ["--help", "--hlep"])
def test_answer_in_a_process_of_its_own(name, option):
    """As a user gives it; without an import that takes long, and so at once."""
    done = script("-X", "importtime", name, *REQUIRED.get(name, []), option)
    lines = done.stderr.splitlines(keepends=True)
    imports = [line for line in lines if line.startswith("import time:")]
    said = "".join(line for line in lines if line not in imports)
    if option == "--help":
        assert (done.returncode, said) == (0, "")
        assert done.stdout.startswith(f"usage: {name} ")
    else:
        check_refused(name, option, done.returncode, done.stdout, said)
    imported = {line.split("|")[-1].strip() for line in imports}
    assert "numpy" in imported
    assert not {"tensorflow", "keras", "matplotlib", "scipy", "sklearn"} & imported


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [("train.py", DIGITS, "cannot write to --results"), ("attack.py", [], "no runs in")],
)
def test_results_below_a_file(tmp_path, run_script, name, arguments, message):
    (tmp_path / "file").write_text("kept")
    results = tmp_path / "file" / "results"
    check_refused(name, message, *run_script(name, *arguments, "--results", results))
    assert tree(tmp_path) == {"file": b"kept"}


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_and_defaults(run_script, monkeypatch, name):
    """Every argument of main is an option that --help explains, with the same default."""
    monkeypatch.setenv("COLUMNS", "100")
    status, out, err = run_script(name, "--help")
    assert (status, err) == (0, "")
    module = importlib.import_module(name.removesuffix(".py"))
    parameters = dict(inspect.signature(module.main).parameters)
    for not_on_command_line in ("callbacks", "readme"):
        parameters.pop(not_on_command_line, None)
    for parameter in parameters.keys() - {"names"}:  # the figures are no option
        option = "--" + parameter.removesuffix("_named").replace("_", "-")
        assert re.search(rf"^  (--seed.*, )?{option}\b", out, re.MULTILINE), option
    found = vars(module._parser().parse_args(REQUIRED.get(name, [])))
    for key, parameter in parameters.items():
        if parameter.default is not parameter.empty:
            assert found[key] == (parameter.default if key != "names" else [])


def test_attack_as_a_process(trained, tmp_path):
    """In the L2 ball, as that draws one figure in place of all. (train.py: see test_cluster.py.)"""
    results = shutil.copytree(trained, tmp_path / "results")
    done = script("attack.py", "--norm", "2", "--results", results)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    names = {run.name for run in runs.list_runs(results / "digits-0-1")}
    assert all(name in done.stdout for name in names)
    assert {place.name for place in (results / "digits-0-1/attack/l2").iterdir()} == names


def test_a_radius_has_one_name():
    assert str(cli.radius("-0.0")) == str(cli.radius("0")) == "0.0"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_stdout_on_a_full_disk(trained, tmp_path):
    results = shutil.copytree(trained, tmp_path / "results")
    with open("/dev/full", "w") as full:
        streams = dict(capture_output=False, stdout=full, stderr=subprocess.PIPE)
        done = script("plots.py", "hinge_loss", "--results", results, **streams)
    *_, error = done.stderr.splitlines()
    assert (done.returncode, error) == (2, "plots.py: error: [Errno 28] No space left on device")
    assert "Traceback" not in done.stderr


def test_stdout_that_nobody_reads(trained, tmp_path):
    """As in `| head`: an end without a word."""
    results = shutil.copytree(trained, tmp_path / "results")
    command = [sys.executable, "plots.py", "hinge_loss", "--results", str(results)]
    options = dict(cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with subprocess.Popen(command, **options) as process:
        process.stdout.close()
        err = process.stderr.read()
        assert process.wait() == 1
    assert "Error" not in err


@pytest.mark.skipif(sys.platform != "linux", reason="it takes a folder that root cannot write to")
@pytest.mark.parametrize("name", ["train.py", "optimum.py", "masking.py", "benchmark.py"])
def test_read_only_results(run_script, name):
    """At once, before any work is done."""
    arguments = [*REQUIRED.get(name, []), *DIGITS, "--results", "/proc/results"]
    check_refused(name, "cannot write to --results /proc/results", *run_script(name, *arguments))


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="there are no pseudo-terminals here")
def test_interrupted_training_leaves_nothing(training):
    """Ctrl-C after the first epoch, which the progress bar on a terminal tells."""
    shown, deadline = b"", time.monotonic() + 120

    def read() -> bytes:
        """What the terminal shows next; nothing after a second of silence."""
        ready, _, _ = select.select([training.terminal], [], [], 1)
        return os.read(training.terminal, 4096) if ready else b""

    process = training.process
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
    assert list(training.results.iterdir()) == []


def test_a_worker_that_has_lost_the_other_says_so(workers):
    """And what it had written is whole."""
    _, err = workers.chief.communicate(timeout=60)
    assert workers.chief.returncode == 2
    waiting, *_, error = err.splitlines()  # between them TensorFlow tells of the lost connection
    assert waiting.startswith("worker 0 of 2 workers: waiting")
    assert error.startswith("train.py: error: another worker has ended or is out of reach, ")
    written = runs.list_runs(workers.results / "digits-0-1")
    assert all(runs.load(folder) for folder in written)
    assert not [name for name in tree(workers.results) if "/." in name]
