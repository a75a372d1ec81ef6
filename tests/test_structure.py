"""Which module imports which: the arrows point one way."""

import ast
import sys
from graphlib import TopologicalSorter

from common.cli import ROOT

import pytest

TRAINING = {"tensorflow", "keras", "data"}  # numbers and pictures are made without these
PATHS = [
    path
    for folder in (".", "advlinear", "advlinear/minima", "common", "figures")
    for path in (ROOT / folder).glob("*.py")
]
OURS = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PATHS
}


def imports_of(name: str) -> set[str]:
    """All that a module imports, inside functions too: our modules, and packages of others.

    Who calls `cli.import_tensorflow` imports TensorFlow; `common.cli` only defines it.
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
    for dotted in found - ({"tensorflow"} if name == "common.cli" else set()):
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


def test_no_imports_in_a_circle():
    order = list(TopologicalSorter({name: ours(name) for name in OURS}).static_order())
    assert order.index("advlinear.attack") < order.index("attack")
    assert order.index("common.runs") < order.index("train") < order.index("studies")


def test_the_package_knows_nothing_else_of_this_repository():
    package = {name for name in OURS if name.startswith("advlinear")}
    for name in package:
        assert ours(name) <= package, name
        # Each of these is imported inside the function that needs it.
        others = IMPORTS[name] - OURS.keys() - sys.stdlib_module_names
        assert others <= {"numpy", "scipy", "highspy", "joblib", "sklearn", "threadpoolctl"}, name


def test_common_imports_no_script_but_the_settings():
    common = {name for name in OURS if name.startswith("common")}
    for name in (*common, "recipes"):
        assert ours(name) <= common | {"recipes", "advlinear"}, name


@pytest.mark.parametrize("name", [n for n in OURS if n.startswith(("adv", "plots", "figures"))])
def test_numbers_and_pictures_need_no_training(name):
    assert not reached_from(name) & TRAINING


def test_the_search_above_sees_what_is_imported_in_functions_and_through_others():
    for name in ("attack", "optimum", "studies"):
        assert reached_from(name) >= {"tensorflow", "data"}, name
    assert "highspy" in IMPORTS["advlinear.minima.vertex"]
