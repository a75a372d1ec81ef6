"""The types of the package, and those that a user's script finds: py.typed promises them."""

import ast
import os
import subprocess
import sys

from lab.cli import ROOT

import pytest

import advlinear

SCRIPT = ROOT / "tests" / "user_script.py"
NAMES = {*advlinear.__all__, *advlinear._WITH_SKLEARN}


def mypy(cache, *arguments: str) -> subprocess.CompletedProcess:
    pytest.importorskip("mypy", reason="mypy is not installed")
    command = [sys.executable, "-m", "mypy", "--cache-dir", cache, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Kept between the runs of mypy, of which the first reads NumPy."""
    return tmp_path_factory.mktemp("mypy")


def test_the_package_has_no_type_errors(cache):
    done = mypy(cache, "advlinear")
    assert done.stdout.startswith("Success: no issues found"), done.stdout + done.stderr


def test_a_users_script_has_no_type_errors(cache):
    done = mypy(cache, "--strict", "--follow-imports", "silent", str(SCRIPT))
    assert done.stdout.startswith("Success: no issues found"), done.stdout + done.stderr


WRONG = {
    "found.radius": "attr-defined",
    "found.perturbed(steps=1)": "call-arg",
    "advlinear.attack(([1.0], 0.0), [[1.0]], [1], eps=0.1)": "call-arg",
    "advlinear.minimise([[0.0]], [0], eps='large')": "arg-type",
    "advlinear.path([[0.0]], [0], 0.1, 0.2).at(0.1).weights": "attr-defined",
    "advlinear.RobustClassifier(radius=1)": "call-arg",
    "advlinear.Classifier": "attr-defined",
}


def test_mypy_finds_what_a_user_gets_wrong(cache, tmp_path):
    """If all types were Any, the two tests above would pass."""
    script = tmp_path / "wrong.py"
    given = ["import advlinear", "found = advlinear.attack(([1.0], 0.0), [[1.0]], [1])"]
    script.write_text("\n".join([*given, *WRONG, ""]), encoding="utf-8")
    said = [line for line in mypy(cache, str(script)).stdout.splitlines() if ": error: " in line]
    for number, (line, error) in enumerate(zip(said, WRONG.values(), strict=True), 3):
        assert f"wrong.py:{number}: " in line
        assert line.endswith(f"[{error}]")


def test_the_users_script_runs_and_uses_every_public_name():
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "9 1.061 0.666667 0.666667\nTrue True 0.5\n"
    tree = ast.parse(SCRIPT.read_text(encoding="utf-8"))
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert used >= NAMES


def test_no_error_of_types_is_ignored_in_the_package():
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "advlinear").rglob("*.py")]
    assert not any("type: ignore" in text for text in texts)
