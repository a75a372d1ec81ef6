"""What a kill -9 leaves behind: whole runs, attacks and pictures, or what was there before."""

import os

import pytest
from conftest import script


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot be forked here")
@pytest.mark.parametrize(("work", "at_random"), [("write", 15), ("file", 15), ("attack", 0)])
def test_killed(work, at_random):
    """At each file operation and at random moments; `python tests/killer.py WORK 300` does more."""
    done = script("tests/killer.py", work, at_random)
    assert done.returncode == 0, done.stderr
    assert "all whole" in done.stdout
    assert int(done.stdout.split()[2]) > at_random + 5
