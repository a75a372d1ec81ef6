"""README.md against the files that it speaks of."""

import re

import pytest

import plots
import stored
import tables
from cli import RESULTS, ROOT, InputError

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_tables_are_those_of_the_results():
    for name, table in tables.tables(RESULTS).items():
        assert f"<!-- {name} -->\n{table}<!-- /{name} -->" in TEXT


def test_the_numbers_in_the_prose_are_those_of_the_results():
    dataset = RESULTS / "mnist-0-1"
    models = stored.load_models(dataset)
    prose = re.sub(r"<!-- ([\w-]+) -->.*<!-- /\1 -->", "", TEXT, flags=re.DOTALL)
    robust = models["robust-eps0.2"]
    for text, model, eps in (
        (r"test accuracy (\.\d{4})", models["regular"], 0),
        (r"the robust one: (\.\d{4}) clean", robust, 0),
        (r"clean, (\.\d{4}) at ε = .2", robust, 0.2),
    ):
        assert float(re.search(text, prose)[1]) == round(model.accuracy(eps), 4)
    for text, model, eps in (
        (r"falls to (\d+) %", models["regular"], 0.1),
        (r"keeps (\d+) %", robust, 0.1),
    ):
        assert int(re.search(text, prose)[1]) == round(100 * model.accuracy(eps))


def test_kolter_and_madrys_numbers_are_met():
    """Our means lie in the reference's range over ten seeds; clean errors to one image."""
    models = stored.load_models(RESULTS / "mnist-0-1")
    for name, clean, low, high in (
        ("regular", 0.0008, 0.80, 0.85),
        ("robust-eps0.2", 0.0037, 0.0236, 0.0251),
    ):
        members = [m for run, m in models.items() if run.startswith(f"{name}-kolter-madry")]
        assert len(members) == 10
        errors = [[1 - m.accuracy(eps) for m in members] for eps in (0, 0.2)]
        assert abs(sum(errors[0]) / 10 - clean) <= 1 / 2115
        assert low <= sum(errors[1]) / 10 <= high


def test_every_link_and_every_file_named_is_there():
    for target in re.findall(r"\]\((?!https:)([^)#]+)\)", TEXT):
        assert (ROOT / target).exists(), target
    for script in re.findall(r"`(\w+\.(?:py|mplstyle))`", TEXT):
        assert (ROOT / script).is_file(), script


def test_every_figure_is_listed():
    listed = TEXT.split("## Figures")[1].split("## ")[0]
    for name in plots.ALL:
        assert f"`{name}`" in listed


def test_a_readme_without_markers_is_refused_and_left_alone(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("no markers", encoding="utf-8")
    with pytest.raises(InputError, match="markers"):
        tables.main(readme=readme)
    assert readme.read_text(encoding="utf-8") == "no markers"
