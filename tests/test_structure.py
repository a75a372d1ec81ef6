"""Which module imports which: the arrows point down, from the experiment to lab/ to advlinear/."""

import ast
import sys
from graphlib import TopologicalSorter

from lab.cli import ROOT

import pytest

TRAINING = {"tensorflow", "keras", "data"}  # numbers and pictures are made without these
FLOORS = ("advlinear", "lab", "figures")
OURS = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in (*ROOT.glob("*.py"), *(p for f in FLOORS for p in (ROOT / f).rglob("*.py")))
}


def imports_of(name: str) -> set[str]:
    """All that a module imports, inside functions too: our modules, and packages of others.

    Who calls `cli.import_tensorflow` imports TensorFlow; `lab.cli` only defines it.
    """
    found = set()
    for node in ast.walk(ast.parse(OURS[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif "import_tensorflow" in (getattr(node, "id", ""), getattr(node, "attr", "")):
            found.add("tensorflow")
    modules = set()
    for dotted in found - ({"tensorflow"} if name == "lab.cli" else set()):
        possible = (dotted, dotted.rpartition(".")[0])  # a module, or a name in one
        modules.add(next((one for one in possible if one in OURS), dotted.partition(".")[0]))
    return modules


IMPORTS = {name: imports_of(name) for name in OURS}


def reached_from(name: str) -> set[str]:
    """What a module imports, directly or through others."""
    reached, todo = set(), [name]
    while todo:
        new = IMPORTS.get(todo.pop(), set()) - reached
        reached |= new
        todo += new
    return reached


def ours(name: str) -> set[str]:
    return IMPORTS[name] & OURS.keys()


def floor(name: str) -> int:
    """0 for the method, 1 for what serves the scripts, 2 for the experiment."""
    return ("advlinear", "lab").index(top) if (top := name.partition(".")[0]) in FLOORS[:2] else 2


def test_no_imports_in_a_circle():
    order = list(TopologicalSorter({name: ours(name) for name in OURS}).static_order())
    assert order.index("worst_case") < order.index("attack")
    assert order.index("lab.store") < order.index("runs") < order.index("train")


@pytest.mark.parametrize("name", OURS)
def test_no_module_imports_one_of_a_floor_above(name):
    assert [other for other in ours(name) if floor(other) > floor(name)] == []


def test_the_package_imports_few_others():
    for name in OURS:
        if floor(name) == 0:  # each of these is imported inside the function that needs it
            others = IMPORTS[name] - OURS.keys() - sys.stdlib_module_names
            required = {"numpy", "scipy", "highspy", "threadpoolctl"}
            assert others <= required | {"joblib", "matplotlib", "sklearn"}, name


def test_a_constant_of_the_package_has_one_name_and_one_value():
    """No name of a constant is defined in two modules."""
    places: dict[str, list[str]] = {}
    for name, path in OURS.items():
        if floor(name) > 0:
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            targets = getattr(node, "targets", [getattr(node, "target", None)])
            named = [one.id for top in targets if top for one in ast.walk(top) if "id" in vars(one)]
            for constant in filter(str.isupper, named):
                places.setdefault(constant, []).append(name)
    assert {"OVERSHOOT", "REACH", "LOSSES", "U"} <= places.keys()
    assert [constant for constant, modules in places.items() if len(modules) > 1] == []


def test_settings_know_of_lab_only_the_error():
    """And lab/ knows no settings: a file of results could be about anything."""
    tree = ast.parse(OURS["recipes"].read_text(encoding="utf-8"))
    taken = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names = {alias.name for node in taken if node.module.startswith("lab") for alias in node.names}
    assert names == {"InputError"}
    assert ours("recipes") == {"lab.cli"}
    assert "recipes" not in reached_from("lab.store")


@pytest.mark.parametrize("name", [n for n in OURS if n.startswith(("adv", "plots", "figures"))])
def test_numbers_and_pictures_need_no_training(name):
    through = {name} | (reached_from(name) & OURS.keys()) - TRAINING
    assert {one: IMPORTS[one] & TRAINING for one in through if IMPORTS[one] & TRAINING} == {}


def test_the_search_above_sees_what_is_imported_in_functions_and_through_others():
    for name in ("attack", "optimum", "studies"):
        assert reached_from(name) >= {"tensorflow", "data"}, name
    assert reached_from("advlinear") >= {"highspy", "scipy"}


@pytest.mark.parametrize(
    ("file", "lines"),
    {
        "losses.py": ("m - eps ||w||_q", "def margins", "def worst_case_margins", "def hinge"),
        "model.py": ("w.x + b", "keras.layers.Dense(1"),
        "train.py": (
            "with tf.GradientTape() as tape:",
            "losses.margins(",
            "losses.worst_case_margins(",
            "tape.gradient(",
            "optimizer.apply(",
            "def fit(",
        ),
        "attack.py": ("delta = -y eps sign(w)", "r = m / ||w||_1", "worst_case.perturbation("),
    }.items(),
)
def test_the_first_screen_of_the_experiment_shows_its_idea(file, lines):
    first = "\n".join((ROOT / file).read_text("utf-8").splitlines()[:60])
    assert [line for line in lines if line not in first] == []
