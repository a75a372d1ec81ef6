"""Settings: what they refuse, the name that they give a run, and the command that makes the run."""

import dataclasses
import re
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

from lab.cli import RESULTS, InputError

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import advlinear
import data
import losses
import optimum
import recipes
import runs
import train
import worst_case

DATASETS = ("mnist-0-1", "mnist-sample-0-1")
PUBLISHED = sorted((RESULTS / "mnist-0-1" / "runs").glob("*.npz"))
ROBUST = recipes.settings("mnist-0-1", robust=True)


def made_by(command: str, dataset: str) -> recipes.Settings:
    """The settings that this command makes a run of, where this data set is at hand.

    `train.main` or `optimum.main` is run as it is, but for the data and the work.
    """
    python, script, *options = command.split()
    module = {"train.py": train, "optimum.py": optimum}[script]
    work = (train.cli, "side_by_side") if module is train else (optimum, "optimise")
    split = SimpleNamespace(name=dataset, y_train=range(12665))
    with (
        mock.patch.object(data, "load", return_value=split) as load,
        mock.patch.object(data, "load_all", return_value=split) as load_all,
        mock.patch.object(*work, return_value=[]) as worked,
    ):
        module.main(**vars(module._parser().parse_args(options)))
    if load_all.called:
        source, digits = load_all.call_args.args[0], ("all",)
    else:
        source, digits, _ = load.call_args.args
    named = "-".join([source.replace("auto", "mnist"), *map(str, digits)])
    assert (python, named) == ("python", dataset)
    ((settings,),) = [worked.call_args.args[1] if module is train else worked.call_args.args[:1]]
    return settings


# --- names -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (dict(), "regular"),
        (dict(init="zeros", seed=3), "regular-initzeros-seed3"),
        (dict(eager=True), "regular-eager"),
        (dict(robust=True), "robust-eps0.2"),
        (dict(robust=True, eps=1), "robust-eps1"),
        (dict(robust=True, eps=np.float64(1e-5)), "robust-eps1e-05"),
        (dict(robust=True, eps=-0.0), "robust-eps0"),
        (dict(robust=True, norm=2), "robust-eps0.2-l2"),
        (dict(robust=True, norm="1", loss="logistic"), "robust-eps0.2-l1-losslogistic"),
        (dict(robust=True, box=True), "robust-eps0.2-box"),
        (dict(robust=True, recipe="kolter-madry"), "robust-eps0.2-kolter-madry"),
        (dict(robust=True, recipe="converged", seed=1), "robust-eps0.2-converged-seed1"),
        (dict(robust=True, learning_rate=0.1), "robust-eps0.2-learningrate0.1"),
    ],
    ids=str,
)
def test_name_shows_what_differs_from_the_recipe(options, name):
    assert recipes.settings("mnist-0-1", **options).name == name


OTHERS = dict(  # values that a setting may have besides its recipe's
    loss=st.sampled_from(recipes.LOSSES),
    epochs=st.integers(1, 999),
    batch_size=st.integers(1, 999),
    learning_rate=st.sampled_from([1.0, 1e-5]) | st.floats(1e-9, 1e20),
    momentum=st.floats(0, 0.999),
    schedule=st.sampled_from(recipes.SCHEDULES),
    init=st.sampled_from(recipes.INITS),
    seed=st.sampled_from([1, 10]) | st.integers(0, 2**32 - 1),
    eager=st.booleans(),
)


@st.composite
def settings(draw):
    """Valid settings of a trained run, about half of them those of its recipe."""
    dataset, recipe = draw(st.sampled_from(DATASETS)), draw(st.sampled_from(list(recipes.RECIPES)))
    robust, eps, norm, box = draw(st.booleans()), 0.0, "inf", False
    if robust:
        norm = draw(st.sampled_from(list(recipes.NORMS)))
        box = norm == "inf" and draw(st.booleans())
        eps = draw(
            st.sampled_from([0.0, 0.2, 1.0, 1e-5]) | st.floats(0, 1 if norm == "inf" else 10)
        )
    usual = recipes.defaults(recipe, robust, dataset)
    tuned = {name: draw(st.just(usual[name]) | others) for name, others in OTHERS.items()}
    return recipes.Settings(dataset, recipe, robust, eps, norm, box, **tuned)


@hypothesis.settings(max_examples=200)
@given(settings(), settings(), st.sets(st.sampled_from(list(OTHERS))))
def test_different_settings_have_different_files(first, second, taken):
    """`second` takes some values of `first`, so that they often differ in one or two alone."""
    second = dataclasses.replace(second, **{name: getattr(first, name) for name in taken})
    place = Path("results")
    assert (runs.run_file(place, first) == runs.run_file(place, second)) == (first == second)
    assert Path(first.name).name == first.name


def test_neighbouring_radii_have_different_names():
    assert ROBUST.name != dataclasses.replace(ROBUST, eps=np.nextafter(0.2, 1)).name


# --- commands --------------------------------------------------------------------------------


@hypothesis.settings(max_examples=200)
@given(settings())
def test_the_command_of_a_run_trains_with_its_settings(settings):
    assert made_by(settings.command(), settings.dataset) == settings


@pytest.mark.parametrize("file", PUBLISHED, ids=lambda file: file.name.removesuffix(".npz"))
def test_published_settings_are_those_of_the_stored_command(file):
    """Recipes and defaults are today what they were when the run was made."""
    run = runs.load_run(file)
    assert run.facts["command"] == run.settings.command()
    assert made_by(run.facts["command"], "mnist-0-1") == run.settings


def test_the_runs_that_figures_ask_for_are_published_under_their_names():
    shown = recipes.shown("mnist-0-1")
    assert all(name == settings.name for name, settings in shown.items())
    published = {file.name.removesuffix(".npz") for file in PUBLISHED}
    assert published - shown.keys() == {"optimal-eps0.2-losslogistic"}  # which no figure shows


@pytest.mark.parametrize("dataset", ["mnist-0-1", "mnist-3-7", "mnist-sample-0-1"])
def test_the_command_says_which_data_set(dataset):
    assert made_by(recipes.settings(dataset).command(), dataset).dataset == dataset
    assert made_by(recipes.optimal(dataset, 0.1).command(), dataset).dataset == dataset


@pytest.mark.parametrize("dataset", ["mnist-all", "mnist-sample-all"])
def test_the_command_of_a_minimum_of_ten_digits(dataset):
    settings = recipes.optimal(dataset, 0.05)
    assert settings.command().endswith(" --digits all")
    assert made_by(settings.command(), dataset) == settings


def test_a_run_with_callbacks_has_no_command():
    settings = recipes.with_callbacks(ROBUST)
    assert settings.name == "robust-eps0.2-callbacks"
    assert settings.command() == "the Python code that made it"


def test_a_loss_that_only_training_knows_is_not_offered_for_minima(monkeypatch):
    """What a new loss needs is its name in LOSSES; optimum.py offers those that it can minimise."""
    monkeypatch.setattr(recipes, "LOSSES", (*recipes.LOSSES, "squared_hinge"))
    monkeypatch.setitem(recipes.VALID, "loss", recipes.LOSSES)
    assert recipes.settings("mnist-0-1", True, loss="squared_hinge").loss == "squared_hinge"
    with pytest.raises(SystemExit):
        optimum._parser().parse_args(["--eps", "0.1", "--loss", "squared_hinge"])
    with pytest.raises(InputError, match="--loss needs one of hinge, logistic, not"):
        optimum.main(0.1, loss="squared_hinge")


def test_each_loss_is_one_that_the_scripts_have():
    for name in recipes.LOSSES:
        assert callable(getattr(losses, name))
    for name in recipes.SOLVED:
        assert callable(getattr(worst_case, name))
        x, y = np.eye(2), np.array([-1.0, 1.0])
        assert advlinear.minimise(x, y, 0.1, loss=name).gap < 1e-6


# --- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(robust=1), "--robust needs True or False, not 1"),
        (dict(robust=True, eps=-0.1), "--eps needs a finite number of at least 0, not -0.1"),
        (dict(robust=True, eps=np.nan), "--eps needs a finite number of at least 0, not nan"),
        (dict(robust=True, eps="0.2"), "--eps needs a finite number of at least 0, not '0.2'"),
        (dict(robust=True, norm="3"), "--norm needs one of inf, 2, 1, not '3'"),
        (dict(recipe="best"), "--recipe needs one of article, converged, kolter-madry"),
        (dict(recipe="optimal"), "--recipe needs one of article, converged, kolter-madry"),
        (dict(epochs=0), "--epochs needs a whole number of at least 1, not 0"),
        (dict(epochs=1.5), "--epochs needs a whole number of at least 1, not 1.5"),
        (dict(learning_rate=np.inf), "--learning-rate needs a finite number above 0, not inf"),
        (dict(momentum=1), "--momentum needs a number from 0 to below 1, not 1"),
        (dict(seed=2**32), "--seed needs a whole number from 0 to 2^32 - 1, not 4294967296"),
        (dict(dropout=0.5), "no setting dropout; there are: recipe, robust, eps, "),
        (dict(box=True), "--eps, --norm and --box need --robust"),
        (dict(robust=True, box=True, norm="2"), "--box needs --norm inf, not 2"),
        (dict(robust=True, eps=1.01), "--eps 1.01 is too large: "),
    ],
    ids=str,
)
def test_settings_that_are_refused(options, message):
    with pytest.raises(InputError, match=re.escape(message)):
        recipes.settings("mnist-0-1", **options)
