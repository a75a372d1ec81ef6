"""The scripts as commands: what they refuse and how, --help, their streams, and Ctrl-C."""

import contextlib
import importlib
import inspect
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import lab
from lab import cli, store
from lab.cli import ROOT

import pytest
from conftest import script, tree

import attack
import runs

SAMPLE = ["--dataset", "mnist-sample"]
BAD_COMMANDS = [
    ("train.py", ["--robust", "--eps", "0.1", "nan"], "--eps needs a finite number of at least 0"),
    ("train.py", ["--robust", "--eps", "big"], "--eps: invalid float value: 'big'"),
    ("train.py", ["--epochs", "0"], "--epochs needs a whole number of at least 1, not 0"),
    ("train.py", ["--epochs", "1.5"], "--epochs: invalid int value: '1.5'"),
    ("train.py", ["--learning-rate", "0"], "--learning-rate needs a finite number above 0, not 0"),
    ("train.py", ["--momentum", "1"], "--momentum needs a number from 0 to below 1, not 1"),
    ("train.py", ["--seeds", "0", "-1"], "--seed needs a whole number from 0 to 2^32 - 1, not -1"),
    ("train.py", ["--loss", "square"], "--loss: invalid choice"),
    ("train.py", ["--box"], "need --robust"),
    ("train.py", ["--jobs", "0"], "--jobs needs a whole number of at least 1, not 0"),
    ("train.py", ["--epoch", "3"], "unrecognized arguments: --epoch"),
    ("train.py", [*SAMPLE, "--digits", "3", "3"], "--digits needs two different digits"),
    ("train.py", ["--mnist-dir", "absent"], "--mnist-dir absent lacks train-images-idx3-ubyte.gz"),
    ("attack.py", [], "no runs of two digits in"),
    ("attack.py", ["--norm", "3"], "--norm: invalid choice: '3'"),
    ("optimum.py", ["--eps", "0.1", "-0.1"], "--eps needs a finite number of at least 0"),
    ("explore.py", [], "no runs of two digits in"),
    ("plots.py", [], "nothing to draw in"),
    ("plots.py", ["--dpi", "5000"], "--dpi needs a whole number from 10 to 1200, not 5000"),
    ("plots.py", ["--format", "gif"], "--format: invalid choice: 'gif'"),
    ("studies.py", ["sleep"], "no study 'sleep'; there are: noise, transfer, "),
    ("benchmark.py", ["--parts", "sleep"], "--parts: invalid choice: 'sleep'"),
    ("tables.py", [], "no runs of two digits in"),
    ("reproduce.py", ["check"], "unrecognized arguments: check"),
]
SCRIPTS = sorted({name for name, *_ in BAD_COMMANDS})
REQUIRED = {"optimum.py": ["--eps", "0.1"], "studies.py": ["noise"]}
terminal = pytest.mark.skipif(not hasattr(os, "openpty"), reason="there are no terminals here")


def heed_ctrl_c():
    """For a child: where the tests run in the background, it inherits that Ctrl-C is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


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


# --- bad input, help -----------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "arguments", "message"), BAD_COMMANDS)
def test_bad_command_is_refused_and_nothing_is_written(
    tmp_path, run_script, name, arguments, message
):
    check_refused(name, message, *run_script(name, *arguments, "--results", tmp_path / "results"))
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_one_data_set_is_not_that_of_all_results(tmp_path):
    (tmp_path / "runs").mkdir()
    with pytest.raises(cli.InputError, match="is the folder of one data set: pass the one above"):
        cli.results_folder(tmp_path)
    assert cli.folder("mnist-dir", tmp_path) == tmp_path


def test_a_user_who_is_not_there_has_no_results(run_script):
    done = run_script("plots.py", "--results", "~nosuchuser/x")
    check_refused("plots.py", "--results needs a folder, not '~nosuchuser/x'", *done)


def test_the_home_folder_is_known_by_its_sign(tmp_path, run_script, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    status, _, err = run_script("plots.py", "--results", "~/none")
    assert status == 2
    assert str(tmp_path / "none") in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="there are no links here")
def test_a_link_that_leads_to_itself_is_refused_before_the_work(tmp_path, run_script):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    done = run_script("train.py", *SAMPLE, "--results", tmp_path / "loop" / "results")
    check_refused("train.py", "cannot write to --results", *done)


def test_a_line_break_in_a_path_does_not_break_the_line(tmp_path, run_script):
    done = run_script("plots.py", "--results", tmp_path / "two\nlines")
    check_refused("plots.py", r"nothing to draw in", *done)
    assert r"two\nlines" in done[2]


@pytest.mark.skipif(sys.platform != "linux", reason="it takes a folder that root cannot write to")
@pytest.mark.parametrize("name", ["train.py", "optimum.py", "studies.py", "benchmark.py"])
def test_read_only_results_are_refused_before_the_work(run_script, name):
    arguments = [*REQUIRED.get(name, []), *SAMPLE, "--results", "/proc/results"]
    check_refused(name, "cannot write to --results /proc/results", *run_script(name, *arguments))


@pytest.mark.parametrize("options", [["--help"], ["--epochs", "0"]])
def test_help_and_refusals_import_nothing_slow(options):
    done = script("-X", "importtime", "train.py", *options)
    imports = re.findall(r"^import time: .*\| +(\S+)\n", done.stderr, re.MULTILINE)
    assert "argparse" in imports
    assert not {"tensorflow", "keras", "matplotlib", "sklearn", "highspy"} & set(imports)
    assert done.returncode == (0 if options == ["--help"] else 2)


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_and_the_parser_take_what_main_takes(run_script, name):
    status, out, err = run_script(name, "--help")
    assert (status, err) == (0, "")
    assert out.startswith(f"usage: {name} ")
    module = importlib.import_module(name.removesuffix(".py"))
    found = module._parser().parse_args(["noise"] if name == "studies.py" else [])
    inspect.signature(module.main).bind(**vars(found))


# --- a good command ------------------------------------------------------------------------------


def test_attack_from_another_folder(trained, tmp_path):
    """With a path relative to it, in the L2 ball, for which few figures are drawn."""
    dataset = shutil.copytree(trained, tmp_path / "results") / "mnist-sample-0-1"
    done = script(ROOT / "attack.py", "--norm", "2", "--results", "results", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    names = store.names(dataset / "runs")
    assert all(name in done.stdout for name in names)
    assert store.names(dataset / "attacks" / "l2") == names


@pytest.mark.parametrize(
    ("command", "makes"),
    [
        (["attack.py", "--norm", "1"], "attacks/l1/regular-epochs5.npz"),
        (["plots.py", "accuracy"], "figures/epochs5/accuracy.png"),
        (["tables.py"], "tables/runs.csv"),
    ],
)
def test_unsound_files_do_not_stop_the_rest(trained, sample, tmp_path, run_script, command, makes):
    """A damaged run, an empty one and a stale attack are named, a line each; status 1."""
    dataset = shutil.copytree(trained, tmp_path / "results") / "mnist-sample-0-1"
    run = runs.load_run(dataset / "runs" / "regular-epochs5.npz")
    for norm in ("inf", "2"):
        found = attack.attack(run, sample, norm)
        if norm == "2":
            found.facts["weights_sha256"] = "0" * 64
        runs.save_attack(dataset, run.name, found)
    stale = dataset / "attacks" / "l2" / "regular-epochs5.npz"
    damaged = dataset / "runs" / "robust-eps0.05-epochs5.npz"
    damaged.write_bytes(damaged.read_bytes()[:-99])
    empty = dataset / "runs" / "regular.npz"
    empty.touch()
    status, _, err = run_script(*command, "--results", dataset.parent)
    assert status == 1
    assert (dataset / makes).is_file()
    told = [line for line in err.splitlines() if line.startswith(command[0])]
    places = f"{empty} is damaged", f"{damaged} is damaged", f"{stale} is stale"
    for line, place in zip(told, places, strict=True):
        assert line.startswith(f"{command[0]}: {place} (")
        assert ": run " in line


@pytest.fixture
def plot(trained, tmp_path):
    """The command of a process that draws one figure, from results that it may write to."""
    results = shutil.copytree(trained, tmp_path / "results")
    return [sys.executable, str(ROOT / "plots.py"), "hinge_loss", "--results", str(results)]


def test_stdout_that_nobody_reads_on(plot):
    """As in `| head`: an end without a word of it."""
    streams = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with subprocess.Popen(plot, **streams) as process:
        process.stdout.close()
        err = process.stderr.read()
        assert process.wait() == 1
    assert "Error" not in err


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (1, 2), (0, 1, 2)], ids=str)
def test_standard_streams_that_are_closed(plot, closed):
    """As by `2>&-`: what goes there is lost, and the rest is as ever; also of a refusal."""

    def close():
        for number in closed:
            os.close(number)

    results = Path(plot[-1])
    assert not list(results.glob("*/figures/hinge_loss.png"))
    streams = dict(stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    for name, status in (("hinge_loss", 0), ("nosuch", 2)):
        command = [name if part == "hinge_loss" else part for part in plot]
        done = subprocess.run(command, preexec_fn=close, text=True, **streams)
        assert done.returncode == status
        assert done.stdout.startswith("1 figure: " if status == 0 and 1 not in closed else "")
        assert done.stderr.startswith("plots.py: error: " if status and 2 not in closed else "")
        assert "Traceback" not in done.stderr
    assert list(results.glob("*/figures/hinge_loss.png"))


# --- a missing library ---------------------------------------------------------------------------


def test_missing_library_is_told_with_what_to_type(tmp_path):
    """Without site-packages there is no NumPy, which each script uses first."""
    done = script("-S", "train.py", "--results", tmp_path / "results")
    check_refused("train.py", "numpy is not installed", done.returncode, done.stdout, done.stderr)
    assert "-m venv .venv && .venv/bin/pip install -r requirements.txt" in done.stderr


def test_library_that_is_missed_later_is_told_alike(tmp_path, run_script, monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", None)
    done = run_script("train.py", *SAMPLE, "--results", tmp_path / "results")
    check_refused("train.py", "keras is not installed", *done)
    assert list(tmp_path.iterdir()) == []


def test_python_without_tensorflow_is_told_which_to_take(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 14, 0))
    assert "install Python 3.13, then type python3.13 -m venv" in lab.missing_library("keras")


# --- Ctrl-C --------------------------------------------------------------------------------------


def test_ctrl_c_that_tensorflow_swallowed_ends_the_training(tmp_path, run_script, monkeypatch):
    """The signal was noted, though its exception was lost in C++."""
    monkeypatch.setattr(cli, "INTERRUPTED", threading.Event())
    cli.INTERRUPTED.set()
    done = run_script("train.py", *SAMPLE, "--results", tmp_path)
    assert done == (130, "", "train.py: interrupted\n")
    assert tree(tmp_path) == {}


@terminal
def test_interrupted_training_leaves_nothing(tmp_path):
    """Ctrl-C after the first epoch, which the progress bar on a terminal tells."""
    import termios

    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (25, 200))  # wide enough for the bar's numbers
    command = [sys.executable, "train.py", *SAMPLE, "--epochs", "100000", "--results", tmp_path]
    streams = dict(stdout=subprocess.PIPE, stderr=theirs)
    with subprocess.Popen(command, cwd=ROOT, preexec_fn=heed_ctrl_c, **streams) as process:
        os.close(theirs)
        last_resort = threading.Timer(120, process.kill)
        last_resort.daemon = True
        last_resort.start()
        shown = b""
        while b"loss=" not in shown:
            shown += os.read(ours, 4096)
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(OSError):  # how a terminal ends on Linux
            while chunk := os.read(ours, 4096):
                shown += chunk
        out, _ = process.communicate()
        last_resort.cancel()
    os.close(ours)
    assert (process.returncode, out) == (130, b"")
    assert b"train.py: interrupted" in shown
    assert b"Traceback" not in shown
    assert tree(tmp_path) == {}
