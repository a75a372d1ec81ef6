"""Settings: what they refuse, the name that they give a run, and the command that a name tells."""

import dataclasses
import re
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

from common import runs
from common.cli import RESULTS, InputError

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import optimum
import recipes
import train

DATASETS = ("mnist-0-1", "mnist-sample-0-1")
PUBLISHED = sorted((RESULTS / "mnist-0-1" / "runs").glob("*.npz"))
ROBUST = recipes.settings("mnist-0-1", robust=True)


def trained_by(name: str, dataset: str) -> recipes.Settings:
    """The settings that reach `train.train` where this data set is at hand and the command is run.

    `train.main` is run as it is, but for the data and the training.
    """
    python, script, *options = recipes.command(name).split()
    assert (python, script) == ("python", "train.py")
    split = SimpleNamespace(name=dataset, y_train=range(12665), checksum="")
    with (
        mock.patch.object(train.data, "load", return_value=split),
        mock.patch.object(train, "train_all", return_value=[]) as training,
    ):
        train.main(**vars(train._parser().parse_args(options)))
    ((settings,),) = [call.args[0] for call in training.call_args_list]
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
def test_command_of_a_name_trains_with_these_settings(settings):
    assert trained_by(settings.name, settings.dataset) == settings


@pytest.mark.parametrize("file", PUBLISHED, ids=lambda file: file.name.removesuffix(".npz"))
def test_published_settings_are_those_of_the_command(file):
    """Recipes and defaults are today what they were when the run was made."""
    settings = runs.load_run(file).settings
    if settings.recipe == recipes.OPTIMAL:
        _, script, *options = recipes.command(settings.name).split()
        assert script == "optimum.py"
        options = optimum._parser().parse_args(options)
        ball = options.norm, options.box
        assert recipes.optimal("mnist-0-1", *options.eps, *ball, options.loss) == settings
    else:
        assert trained_by(settings.name, "mnist-0-1") == settings


@pytest.mark.parametrize("name", [None, "mine"])
def test_a_run_with_callbacks_has_no_command(name):
    settings = recipes.named(ROBUST, name)
    assert settings.name == (name or "robust-eps0.2-callbacks")
    assert recipes.command(settings.name) == "the Python code that made it"


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


@pytest.mark.parametrize("name", ["regular-mine", "robust", "optimal-eps0.1", "../mine", "", 5])
def test_names_that_are_refused(name):
    """They are those of standard runs, or name no folder."""
    with pytest.raises(InputError, match=r"^name "):
        recipes.named(ROBUST, name)
