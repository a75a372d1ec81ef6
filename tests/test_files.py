"""Csv and npz files, and folders of numbers that a reader verifies."""

from common import files
from common.cli import InputError
from common.files import Unsound

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

CONTENTS = {"a.csv": b"x,y\n1,2\n3,4\n", "b.npz": files.to_npz({"w": np.arange(5.0)})}
FACTS = {"eps": 0.2, "digits": [0, 1]}


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """The json file of a folder."""
    return tmp_path_factory.mktemp("numbers") / "index.json"


def refusal(index) -> str:
    """What the reader says of an unsound folder, in one line that names the command."""
    with pytest.raises(Unsound) as caught:
        files.read_numbers(index, "python again.py")
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(": run python again.py")
    return message


def test_folder_round_trip(index):
    files.write_numbers(index, FACTS, CONTENTS)
    assert files.read_numbers(index, "") == (FACTS, CONTENTS)


@given(name=st.sampled_from(list(CONTENTS)), place=st.floats(0, 1), bit=st.integers(0, 7))
def test_any_flipped_bit_of_a_listed_file_is_noticed(index, name, place, bit):
    files.write_numbers(index, FACTS, CONTENTS)
    damaged = bytearray(CONTENTS[name])
    damaged[int(place * (len(damaged) - 1))] ^= 1 << bit
    index.with_name(name).write_bytes(damaged)
    assert refusal(index).startswith(f"{index.with_name(name)} is damaged (its SHA-256")


@pytest.mark.parametrize("content", [b"", b"{", b"\0" * 99, b"\xff", b"[]", b"{}"], ids=repr)
def test_json_that_is_garbage_is_noticed(index, content):
    files.write_numbers(index, FACTS, CONTENTS)
    index.write_bytes(content)
    assert refusal(index).startswith(f"{index} is damaged (")


def test_full_disk_leaves_a_folder_that_is_unfinished(index):
    """No file may grow beyond 100 bytes, so that the csv fits on the disk and the npz does not."""
    resource = pytest.importorskip("resource", reason="there are no such limits here")
    files.write_numbers(index, FACTS, CONTENTS)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(InputError, match=r"^cannot write .*b\.npz: File too large$"):
            files.write_numbers(index, FACTS, CONTENTS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert refusal(index).startswith(f"{index.parent} is unfinished (index.json is missing)")


def test_csv_keeps_every_float32():
    """Nine digits tell any two float32 numbers apart: 10,000 of all sizes."""
    bits = np.random.default_rng(0).integers(0, 2**32, 10_000, dtype=np.uint32)
    values = bits.view(np.float32)[np.isfinite(bits.view(np.float32))]
    found = files.from_csv(files.to_csv({"value": values}))
    assert np.array_equal(np.float32(found["value"]), values)


def test_csv_keeps_text_and_refuses_columns_of_different_lengths():
    columns = {"name": ["a", 'b,"c"\r\n', "ε"], "count": [1, 2, 3]}
    found = files.from_csv(files.to_csv(columns))
    assert {name: column.tolist() for name, column in found.items()} == columns
    with pytest.raises(ValueError, match="zip"):
        files.to_csv({"a": [1], "b": [1, 2]})


def test_npz_runs_no_code_of_a_stranger():
    """An array of objects is a pickle, which could run anything."""
    with pytest.raises(ValueError, match="allow_pickle"):
        files.from_npz(files.to_npz({"w": np.array([{}], dtype=object)}))
