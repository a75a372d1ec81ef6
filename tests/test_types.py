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


# What a user gets wrong, and mypy's name for it: if all types were Any, nothing would be found.
WRONG = {
    "found.radius": "attr-defined",
    "found.perturbed(steps=1)": "call-arg",
    "advlinear.attack(([1.0], 0.0), [[1.0]], [1], eps=0.1)": "call-arg",
    "advlinear.minimise([[0.0]], [0], eps='large')": "arg-type",
    "advlinear.path([[0.0]], [0], 0.1, 0.2).at(0.1).weights": "attr-defined",
    "advlinear.RobustClassifier(radius=1)": "call-arg",
    "advlinear.RobustnessDisplay.from_found(found).axis_": "attr-defined",
    "advlinear.PathDisplay.from_path(found)": "arg-type",
    "advlinear.Classifier": "attr-defined",
}


@pytest.fixture(scope="module")
def errors(tmp_path_factory) -> list[str]:
    """What mypy says of the package, of the user's script and of the wrong lines, in one run."""
    pytest.importorskip("mypy", reason="mypy is not installed")
    folder = tmp_path_factory.mktemp("mypy")
    given = ["import advlinear", "found = advlinear.attack(([1.0], 0.0), [[1.0]], [1])"]
    wrong = folder / "wrong.py"
    wrong.write_text("\n".join([*given, *WRONG, ""]), encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--no-error-summary", "--cache-dir", folder / "cache"]
    done = subprocess.run(
        [*command, "advlinear", SCRIPT, wrong], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_the_package_and_a_users_script_have_no_type_errors(errors):
    assert [line for line in errors if "wrong.py:" not in line] == []


def test_mypy_finds_what_a_user_gets_wrong(errors):
    found = [line for line in errors if "wrong.py:" in line and ": error: " in line]
    for number, (line, error) in enumerate(zip(found, WRONG.values(), strict=True), 3):
        assert f"wrong.py:{number}: error: " in line
        assert line.endswith(f"[{error}]")


def test_the_users_script_runs_and_uses_every_public_name():
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "12 1.061 0.666667 0.666667\nTrue True 0.5\n2.012\n"
    tree = ast.parse(SCRIPT.read_text(encoding="utf-8"))
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert used >= NAMES


def test_no_error_of_types_is_ignored_in_the_package():
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "advlinear").rglob("*.py")]
    assert not any("type: ignore" in text for text in texts)
