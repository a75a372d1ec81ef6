"""lab/drawn.py: a picture is taken as it is only if it would be drawn the same again."""

from lab import drawn

import numpy as np
import pytest


def draws(models):
    """A function that a figure may have."""


def other(models):
    """Another one."""


def test_a_picture_holds_until_its_source_or_its_bytes_change(tmp_path):
    picture, known = tmp_path / "converged" / "one.png", drawn.Drawn(tmp_path)
    assert not known.holds(picture, "source")
    picture.parent.mkdir()
    picture.write_bytes(b"bytes")
    known.add(picture, "source", b"bytes")
    known.save()
    again = drawn.Drawn(tmp_path)
    assert again.holds(picture, "source")
    assert not again.holds(picture, "another source")
    assert not again.holds(tmp_path / "one.png", "source")
    picture.write_bytes(b"edited")
    assert not again.holds(picture, "source")
    picture.unlink()
    assert not again.holds(picture, "source")


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[1]", b'{"one.png": 1}'])
def test_with_a_damaged_record_all_is_drawn(tmp_path, content):
    (tmp_path / ".drawn.json").write_bytes(content)
    (tmp_path / "one.png").write_bytes(b"bytes")
    assert not drawn.Drawn(tmp_path).holds(tmp_path / "one.png", "source")


def test_the_source_is_the_function_the_numbers_the_format_and_the_code(monkeypatch):
    numbers = np.arange(5.0)
    one = drawn.source(draws, (numbers,), "png", 160)
    assert one == drawn.source(draws, (np.arange(5.0),), "png", 160)
    numbers[3] = np.nextafter(3, 4)
    differ = [
        drawn.source(draws, (numbers,), "png", 160),
        drawn.source(other, (np.arange(5.0),), "png", 160),
        drawn.source(draws, (np.arange(5.0),), "png", 300),
    ]
    monkeypatch.setattr(drawn, "_code", lambda: "other code")
    differ.append(drawn.source(draws, (np.arange(5.0),), "png", 160))
    assert len({one, *differ}) == 5


def test_the_code_is_that_of_all_files(monkeypatch, tmp_path):
    here = drawn._code.__wrapped__()
    for name in ("plots.py", "figures/style.mplstyle", "lab/cli.py", "advlinear/minima/path.py"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("1")
    monkeypatch.setattr(drawn, "ROOT", tmp_path)
    found = {here, drawn._code.__wrapped__()}
    for file in (path for path in tmp_path.rglob("*") if path.is_file()):
        file.write_text("2")
        found.add(drawn._code.__wrapped__())
    assert len(found) == 6
