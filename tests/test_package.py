"""advlinear as a package: its names and help, what importing it costs, the wheel in a new place."""

import doctest
import inspect
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile

from lab.cli import ROOT

import pytest

import advlinear

NAMES = [name for name in dir(advlinear) if not name.startswith("_")]
FUNCTIONS = [name for name in NAMES if inspect.isfunction(getattr(advlinear, name))]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_public_names_are_the_thirteen_in_the_table_of_the_page():
    table = (
        (ROOT / "docs" / "package.md")
        .read_text(encoding="utf-8")
        .partition("## The thirteen names")
    )
    rows = re.findall(r"^\| `(\w+)[^|]*\|", table[2].partition("\n## ")[0], re.MULTILINE)
    assert sorted(rows) == NAMES
    assert len(NAMES) == 13
    assert {*advlinear.__all__, "RobustClassifier", "robust_accuracy"} == {*NAMES}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_public_function_is_typed_and_described(name):
    function = getattr(advlinear, name)
    signature = inspect.signature(function)
    assert signature.return_annotation is not signature.empty
    for parameter in signature.parameters.values():
        assert parameter.annotation is not parameter.empty, parameter.name
    for section in ("Args:", "Returns:", "Raises:"):
        assert f"\n{section}\n" in inspect.getdoc(function)


@pytest.mark.parametrize("name", NAMES)
def test_the_example_in_the_help_prints_what_it_says(name):
    (example,) = doctest.DocTestFinder(recurse=False).find(getattr(advlinear, name), name)
    assert example.examples
    said = []
    assert doctest.DocTestRunner().run(example, out=said.append).failed == 0, "".join(said)


def test_importing_the_package_and_attacking_needs_neither_scipy_nor_highspy():
    code = (
        "import sys, advlinear; advlinear.attack(([1.0, 2], 0.5), [[1, 2], [0, 1]], [1, 0]); "
        "loaded = {name.partition('.')[0] for name in sys.modules}; "
        "print(loaded & {'scipy', 'highspy', 'joblib', 'sklearn', 'matplotlib'})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """The python of a new environment that the wheel is installed in, and a folder of its own.

    For want of a network the environment sees the libraries of this one, where advlinear is not
    installed; the folder holds modules that have the names of some of ours.
    """
    folder = tmp_path_factory.mktemp("elsewhere")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    source = folder / "source"  # a copy, as the build leaves files in it
    source.mkdir()
    for part in ("pyproject.toml", "README.md", "train.py"):
        (source / part).write_bytes((ROOT / part).read_bytes())
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "advlinear", source / "advlinear", ignore=ignored)
    build = "wheel --no-build-isolation --no-deps --no-index --wheel-dir".split()
    subprocess.run([*pip, *build, folder, source], check=True)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "env", with_pip=False)
    python = folder / "env" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    paths = "import sysconfig; print(sysconfig.get_path('purelib'))"
    found = subprocess.run([python, "-c", paths], capture_output=True, text=True, check=True)
    site = found.stdout.strip()
    subprocess.run(
        [*pip, "install", "--no-deps", "--no-index", "--target", site, wheel], check=True
    )
    with open(f"{site}/here.pth", "w", encoding="utf-8") as file:
        file.write(sysconfig.get_path("purelib") + "\n")
    work = folder / "work"
    work.mkdir()
    for name in ("data", "common", "exact", "models"):
        (work / f"{name}.py").write_text("raise ImportError('of another project')\n")
    return python, work, wheel


def run(elsewhere, code: str) -> str:
    python, work, _ = elsewhere
    (work / "mine.py").write_text(code, encoding="utf-8")
    done = subprocess.run([python, "mine.py"], cwd=work, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_the_package_alone_and_names_what_it_needs(elsewhere):
    *_, wheel = elsewhere
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (name for name in names if name.endswith("METADATA"))
        text = archive.read(metadata).decode()
    ours = {name for name in names if ".dist-info/" not in name}
    assert ours == {
        file.relative_to(ROOT).as_posix()
        for file in (ROOT / "advlinear").rglob("*")
        if file.suffix == ".py" or file.name == "py.typed"
    }
    assert f"\nVersion: {advlinear.__version__}\n" in text
    needs = set(re.findall(r"^Requires-Dist: ([\w-]+)(?!.*extra ==)", text, re.MULTILINE))
    assert needs == {"numpy", "scipy", "highspy", "threadpoolctl"}


def test_each_block_of_the_readme_runs_where_only_the_wheel_is(elsewhere):
    where = run(elsewhere, "import advlinear; print(advlinear.__file__)")
    assert str(ROOT) not in where
    idea, own = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    for code in (idea, own):
        said = [line.partition("# ")[2] for line in code.splitlines() if line.startswith("print(")]
        assert said
        assert run(elsewhere, code).splitlines() == said


def test_a_minimum_where_only_the_wheel_is(elsewhere):
    code = (
        "import advlinear\n"
        "found = advlinear.minimise([[0.1], [0.4], [0.6], [0.9]], list('aabb'), 0.05)\n"
        "print(found.classes.tolist(), round(found.primal, 6), found.gap <= 1e-6)\n"
    )
    assert run(elsewhere, code) == "['a', 'b'] 0.0 True\n"
