"""What every script's command line shares: one-line errors, exit codes, argument types."""

import argparse
import math
import os
import signal
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parent
RESULTS = ROOT / "results"


class InputError(Exception):
    """Something the user can put right. The message is one line and says what to do."""


class Parser(argparse.ArgumentParser):
    """An argument parser that takes no abbreviations and answers a mistake in one line."""

    def __init__(self, **kwargs):
        super().__init__(allow_abbrev=False, **kwargs)

    def error(self, message):
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")

    def add_data(self):
        self.add_argument(
            "--dataset",
            choices=("auto", "mnist", "digits"),
            default="auto",
            help="auto: MNIST where it can be had, else scikit-learn's 8x8 digits (default: auto)",
        )
        self.add_argument(
            "--digits",
            type=digit,
            nargs=2,
            metavar=("A", "B"),
            default=(0, 1),
            help="the two classes; the lower digit is -1 (default: 0 1)",
        )
        self.add_mnist_dir()

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


def _number(text: str, kind: type, wanted: str, holds) -> float:
    """`text` as a number for which `holds` is true; else argparse's error says what is wanted."""
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not holds(value):
        raise argparse.ArgumentTypeError(f"needs {wanted}, not {text!r}")
    return value


def radius(text: str) -> float:
    """A finite number >= 0, in pixel units of [0, 1]; -0.0 becomes 0.0, so that it has one name."""
    wanted = "a finite number of at least 0 (several apart by spaces)"
    return _number(text, float, wanted, lambda value: 0 <= value < math.inf) + 0.0


def positive(text: str) -> float:
    return _number(text, float, "a finite number above 0", lambda value: 0 < value < math.inf)


def fraction(text: str) -> float:
    """A number in [0, 1), such as a momentum."""
    return _number(text, float, "a number from 0 to below 1", lambda value: 0 <= value < 1)


def positive_int(text: str) -> int:
    return _number(text, int, "a whole number of at least 1", lambda value: value >= 1)


def seed(text: str) -> int:
    wanted = "a whole number from 0 to 2^32 - 1"
    return _number(text, int, wanted, lambda value: 0 <= value < 2**32)


def digit(text: str) -> int:
    return _number(text, int, "a digit from 0 to 9", lambda value: 0 <= value <= 9)


TENSORFLOW = dict(  # its environment, where the user has not set it
    TF_CPP_MIN_LOG_LEVEL="2",
    TF_ENABLE_ONEDNN_OPTS="0",  # its sums depend on the processor
    TF_NUM_INTRAOP_THREADS="1",
    TF_NUM_INTEROP_THREADS="1",
)


def import_tensorflow(start=None):
    """TensorFlow, set up to repeat its results and to start without its page of chatter.

    It gets one thread: handing a step's small operations from thread to thread takes longer than
    they do, and so no sum depends on the number of cores. Its start-up messages go to the file
    descriptor of stderr before any log level counts; Python's own errors still come through.
    `start` is called with TensorFlow before anything else starts its runtime.
    """
    os.environ |= TENSORFLOW | os.environ
    sys.stderr.flush()
    stderr, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        import tensorflow as tf

        if start:
            start(tf)
        tf.config.list_logical_devices()  # speaks once more
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(null)
    tf.get_logger().setLevel("ERROR")  # several models in one process are no retracing mistake
    tf.config.experimental.enable_op_determinism()
    return tf


INTERRUPTED = threading.Event()  # set by Ctrl-C, which TensorFlow's C++ code may swallow


def run(main, parser: Parser) -> None:
    """Parse the command line and call `main` with it; exit 2 on bad input, 130 on Ctrl-C."""

    def interrupt(signal_number, frame):
        INTERRUPTED.set()
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored
        signal.signal(signal.SIGINT, interrupt)
    try:
        main(**vars(parser.parse_args()))
        sys.stdout.flush()
    except InputError as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    except OSError as error:  # of stdout: what the scripts read and write is an InputError
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the rest goes nowhere
        if isinstance(error, BrokenPipeError):  # as in `| head`: nobody reads on
            sys.exit(1)
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    except BaseException:
        if not INTERRUPTED.is_set():
            raise
        parser.exit(130, f"{parser.prog}: interrupted\n")
