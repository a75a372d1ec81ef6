"""The points of other attacks, compared with the radii: against brute force, and refuted claims."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

import advlinear

NORMS = ["inf", "2", "1", "0"]


def problem(seed=0, n=40, d=6, k=3):
    """Samples in [0, 1], labels of which one in eight is another than predicted, and (W, b)."""
    random = np.random.default_rng(seed)
    x, W, b = random.random((n, d)), random.normal(size=(k, d)), random.normal(size=k)
    y = (x @ W.T + b).argmax(axis=1)
    y[::8] = (y[::8] + 1) % k
    return x, y, W, b


def sizes(delta, norm):
    if norm == "0":
        return np.array([sum(one != 0 for one in row) for row in delta])
    power = {"1": 1, "2": 2}.get(norm)
    if power is None:
        return np.array([max(abs(one) for one in row) for row in delta])
    return np.array([sum(abs(one) ** power for one in row) ** (1 / power) for row in delta])


# --- what is in it -------------------------------------------------------------------------------


@pytest.mark.parametrize("box", [None, (0, 1)])
@pytest.mark.parametrize("norm", NORMS)
def test_it_is_what_a_loop_over_samples_finds(norm, box):
    """Of points on the way to other samples and beyond: some adversarial, some outside the box.
    Sizes and excess to 1e-12; the radii themselves are compared with solvers in test_found.py."""
    x, y, W, b = problem()
    found = advlinear.attack((W, b), x, y, norm, box)
    random = np.random.default_rng(1)
    points = x + random.uniform(0, 2, (len(x), 1)) * (x[::-1] - x)
    points[::2] = np.clip(points[::2], 0, 1)
    points[:, 0] = x[:, 0]  # which the norm 0 does not count
    comparison = found.compare(points)
    own = np.arange(len(x)), y
    scores = points @ W.T + b
    right = scores[own] > np.where(np.eye(3)[y] == 1, -np.inf, scores).max(axis=1)
    inside = np.array([box is None or all(0 <= p <= 1 for p in row) for row in points])
    np.testing.assert_array_equal(comparison.adversarial, ~right)
    np.testing.assert_array_equal(comparison.inside, inside)
    np.testing.assert_allclose(comparison.size, sizes(points - x, norm), rtol=1e-12, atol=0)
    counted = ~right & inside & (found.radii > 0) & np.isfinite(found.radii)
    assert 3 < counted.sum() < len(x) - 3
    assert (~inside).any() == (box is not None)
    expected = np.where(counted, comparison.size / np.maximum(found.radii, 1e-9) - 1, np.nan)
    np.testing.assert_allclose(comparison.excess, expected, rtol=1e-12, atol=1e-12)


def test_a_weaker_attack_has_the_share_and_the_excess_that_follow_by_hand():
    """Of the score x1 - 2 x2 without a box, and steps of eps along the sign of the gradient: the
    size is eps, the radius |score| / 3."""
    x, y = np.array([[3.0, 0.0], [6.0, 0.0], [0.0, 3.0], [0.0, 0.15], [1.0, 2.0]]), [1, 1, 0, 0, 1]
    found = advlinear.attack(([1.0, -2.0], 0.0), x, y)
    signs = np.array([[-1, 1], [-1, 1], [1, -1], [1, -1], [-1, 1]])
    comparison = found.compare(x + 1.5 * signs)
    assert comparison.adversarial.tolist() == [True, False, False, True, True]
    np.testing.assert_allclose(comparison.excess, [0.5, np.nan, np.nan, 14, np.nan], rtol=1e-12)
    assert repr(comparison) == (
        "Comparison(5 samples, norm inf: 1 wrong already, 0 that nothing flips, 2 of the other 4 "
        "adversarial and inside, 0.0% within 0.1% of the radius, median excess 7.25)"
    )
    nobody = found.compare(x)
    assert repr(nobody).endswith("0 of the other 4 adversarial and inside)")
    best = found.compare(found.perturbed())
    assert repr(best).endswith("100.0% within 0.1% of the radius, median excess 1e-06)")


def test_samples_of_radius_0_and_inf_have_no_excess():
    """The second can only fall to 2 in the box; a tie, as of the third, is an error."""
    found = advlinear.attack(
        ([1.0], 0.0), [[-1.0], [3.0], [0.5]], [1, 1, 1], box=([[-1], [2], [0]], 9)
    )
    assert found.radii.tolist() == [0, np.inf, 0.5]
    comparison = found.compare([[-1.0], [2.0], [0.0]])
    assert comparison.adversarial.tolist() == [True, False, True]
    assert comparison.size.tolist() == [0, 1, 0.5]
    np.testing.assert_array_equal(comparison.excess, [np.nan, np.nan, 0])
    assert "1 wrong already, 1 that nothing flips, 1 of the other 1" in repr(comparison)
    beyond = found.compare([[-1.0], [-1.0], [-0.5]])  # adversarial, but outside
    assert beyond.adversarial.tolist() == [True, True, True]
    assert beyond.inside.tolist() == [True, False, False]
    assert np.isnan(beyond.excess).all()


def test_a_frozen_feature_that_moves_makes_the_size_infinite_and_the_excess_nan():
    x, scale = np.array([[2.0, 1.0], [2.0, 1.0]]), [2.0, 0.0]
    found = advlinear.attack(([1.0, -1.0], 0.0), x, [1, 1], scale=scale)
    assert found.radii.tolist() == [0.5, 0.5]
    comparison = found.compare([[0.0, 1.0], [2.0, 2.5]])
    assert comparison.size.tolist() == [1, np.inf]
    np.testing.assert_array_equal(comparison.excess, [1, np.nan])


# --- the attack itself, in every form ------------------------------------------------------------


@pytest.mark.parametrize("threat", ["plain", "box", "scale", "target"])
@pytest.mark.parametrize("norm", NORMS)
@given(seed=st.integers(0, 10**6))
def test_the_smallest_perturbations_exceed_the_radius_by_a_millionth(norm, threat, seed):
    """To a tenth of that; towards a target to a few millionths, as the lead there is a millionth
    of the margin. Points a little nearer, on either side of the boundary, are never taken for a
    refutation."""
    if (norm, threat) == ("0", "target"):
        return
    x, y, W, b = problem(seed, n=12)
    more = dict(box=(0, 1)) if threat == "box" else {}
    more |= dict(scale=[1, 2, 0, 0.5, 1, 3]) if threat == "scale" else {}
    more |= dict(target=(y + 1) % 3) if threat == "target" else {}
    found = advlinear.attack((W, b), x, y, norm, **more)
    comparison = found.compare(found.perturbed())
    compared = (found.radii > 0) & np.isfinite(found.radii)
    assert comparison.inside.all()
    never = np.isinf(found.radii)
    np.testing.assert_array_equal(comparison.adversarial, ~never)
    assert np.isnan(comparison.excess[~compared]).all()
    about = 0 if norm == "0" else 1e-6
    allowed = 3e-5 if threat == "target" else 1e-7
    assert (np.abs(comparison.excess[compared] - about) <= allowed).all()
    for share in (1 - 1e-3, 1 - 3e-7, 1 - 1e-12, 1, 1 + 1e-12):
        found.compare(found.perturbed(np.where(compared, found.radii * share, 0)))


def test_a_sparse_matrix_and_a_frame_with_other_columns():
    x, y, W, b = problem()
    x[x < 0.4] = 0
    found = advlinear.attack((W, b), x, y)
    expected = found.compare(found.perturbed()).excess
    for kind in (scipy.sparse.csr_array, scipy.sparse.csc_matrix):
        sparse = advlinear.attack((W, b), kind(x), y)
        points = kind(sparse.perturbed())
        np.testing.assert_allclose(sparse.compare(points).excess, expected, atol=1e-12)
    frame = pd.DataFrame(x[:, :4], columns=list("abcd"), index=range(7, 47))
    frame.insert(1, "colour", "red")
    frame["yes"] = True
    frame["a"] = frame["a"].astype("Float64")
    in_frame = advlinear.attack((W[:, :4], b), frame, y, "1")
    moved = in_frame.perturbed()
    comparison = in_frame.compare(moved)
    plain = advlinear.attack((W[:, :4], b), x[:, :4], y, "1")
    excess = plain.compare(plain.perturbed()).excess
    np.testing.assert_allclose(comparison.excess, excess, atol=1e-12)
    for points, reason in (
        (moved.to_numpy()[:, [0, 2, 3, 4]], "needs to be a DataFrame"),
        (moved.drop(columns="colour"), "needs the columns of X"),
        (moved[["colour", *moved.columns.drop("colour")]], "needs the columns of X"),
        (moved.reset_index(drop=True), "needs the index of X"),
        (moved.iloc[::-1], "needs the index of X"),
        (moved.assign(colour="blue"), "column 'colour' of points differs"),
        (moved.assign(yes=False), "column 'yes' of points differs"),
        (moved.assign(b="1"), "column 'b' of points needs real numbers"),
        (moved.assign(b=1j), "column 'b' of points needs real numbers"),
        (moved.assign(b=np.nan), "points holds NaN"),
    ):
        with pytest.raises(ValueError, match=reason) as error:
            in_frame.compare(points)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("norm", NORMS)
def test_a_model_and_points_in_float32(norm):
    """Where a feature holds the number of the float64 sample as float32 rounds it, it has not
    changed: without that each sample would differ in every feature. Radii of a float32 model are
    exact to 1e-4 of the largest sample; its smallest perturbations are as near."""
    import keras

    x, y, W, b = problem(n=60)
    x[:, :2] = np.round(x[:, :2])  # at the edge of the box
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    model.set_weights([W.T, b])
    y = model.predict(x, verbose=0).argmax(axis=1)
    found = advlinear.attack(model, x, y, norm, (0, 1))
    single = np.float32(found.perturbed())
    comparison, compared = found.compare(single), np.isfinite(found.radii)
    assert compared.sum() > 40
    assert comparison.inside.all()
    if norm == "0":
        assert (comparison.size <= found.radii).all()
        assert comparison.excess[compared].max() == 0
    flipped = compared & comparison.adversarial
    assert flipped.sum() >= 0.9 * compared.sum()  # rounding may undo a millionth
    assert np.abs(comparison.size - found.radii)[flipped].max() <= 1e-4
    for share in np.append(1 - np.logspace(-9, -3, 13), 1):
        sizes = np.where(compared, found.radii * share, 0)
        found.compare(found.perturbed(sizes))
        found.compare(np.float32(found.perturbed(sizes)))


def test_points_outside_by_rounding_are_inside():
    """As samples are: by 1e-9 of the width, or by 4.8e-7 of it where they are float32."""
    x, y = np.array([[0.5, 0.5]]), [1]
    found = advlinear.attack(([1.0, 1.0], 0.0), x, y, box=(0, 1))
    assert found.radii.tolist() == [0.5]
    for points, inside in (
        (np.float64([[-0.9e-9, 0]]), True),
        (np.float64([[-1.1e-9, 0]]), False),
        (np.float32([[-4e-7, 0]]), True),
        (np.float32([[-5e-7, 0]]), False),
    ):
        comparison = found.compare(points)
        assert comparison.inside.tolist() == [inside]
        if inside:  # it is compared where it is after it is moved to the edge
            assert comparison.size.tolist() == [0.5]


# --- what it refuses -----------------------------------------------------------------------------


@pytest.mark.parametrize("target", [False, True])
@pytest.mark.parametrize("norm", NORMS)
def test_a_point_below_the_radius_refutes_it(norm, target):
    """Radii that are claimed to be larger than they are, by a hundred-thousandth, or infinite."""
    if (norm, target) == ("0", True):
        return
    x, y, W, b = problem()
    more = dict(target=(y + 1) % 3) if target else {}
    found = advlinear.attack((W, b), x, y, norm, (0, 1), **more)
    moved, (i, k) = found.perturbed(), np.flatnonzero((found.radii > 0) & (found.radii < 9))[[2, 5]]
    larger = found.radii.copy()
    larger[i] = found.radii[i] * (1 + 1e-4) if norm != "0" else found.radii[i] + 1
    with pytest.raises(
        ValueError, match=f"^sample {i}: its point is adversarial at a size"
    ) as error:
        dataclasses.replace(found, radii=larger).compare(moved)
    assert f"{larger[i]:.9g}" in str(error.value)
    assert "\n" not in str(error.value)
    larger = found.radii.copy()
    larger[k] = np.inf
    with pytest.raises(ValueError, match=f"^sample {k}: .* below the radius of inf"):
        dataclasses.replace(found, radii=larger).compare(moved)
    outside = moved.copy()
    outside[k, 0] = 3  # then it is no claim
    assert not dataclasses.replace(found, radii=larger).compare(outside).inside[k]


def test_a_model_that_has_changed_since_is_refuted():
    x, y, _, _ = problem(k=2)
    model = LogisticRegression().fit(x, y)
    y = model.predict(x)
    found = advlinear.attack(model, x, y)
    model.intercept_ -= 0.3
    was = (found.radii > 0.1) & (y == 1)
    points = found.perturbed(np.where(was, found.radii * 0.9, 0))
    with pytest.raises(ValueError, match="call attack again if the model has changed since"):
        found.compare(points)
    model.intercept_ -= 5  # now even the samples are wrong
    with pytest.raises(ValueError, match="adversarial at a size of 0, below the radius"):
        found.compare(x)
    model.intercept_ += 5.3
    assert not found.compare(points).adversarial.any()


def test_a_wrong_choice_of_the_rival_is_refuted():
    """What the points are compared with are the radii, not the distance to the class reached."""
    x, y, W, b = problem()
    found = advlinear.attack((W, b), x, y)
    farther = []
    for i in range(len(x)):
        a = W[y[i]] - np.delete(W, y[i], axis=0)
        margins = a @ x[i] + b[y[i]] - np.delete(b, y[i])
        farther.append((margins / np.abs(a).sum(axis=1)).max() if margins.min() > 0 else 0.0)
    with pytest.raises(ValueError, match="its point is adversarial at a size"):
        dataclasses.replace(found, radii=np.array(farther)).compare(found.perturbed())


@pytest.mark.parametrize(
    ("points", "reason"),
    [
        (np.zeros((39, 6)), r"points needs the shape of X, \(40, 6\), not \(39, 6\)"),
        (np.zeros((40, 5)), r"not \(40, 5\)"),
        (np.zeros(240), r"not \(240,\)"),
        (np.full((40, 6), "a"), "points needs real numbers"),
        (np.full((40, 6), 1j), "points holds complex numbers"),
        (np.full((40, 6), np.nan), "points holds NaN or infinite numbers: put the numbers of X"),
        (np.full((40, 6), 1e305), "points holds numbers above 1e301"),
        (scipy.sparse.csr_array((40, 6)), "points is sparse"),
        (np.ma.masked_array(np.zeros((40, 6)), True), "points is a masked array"),
        (None, "points"),
    ],
)
def test_what_are_no_points_is_refused(points, reason):
    x, y, W, b = problem()
    with pytest.raises(ValueError, match=reason) as error:
        advlinear.attack((W, b), x, y).compare(points)
    assert "\n" not in str(error.value)


def test_a_sparse_x_needs_sparse_points():
    x, y, W, b = problem()
    found = advlinear.attack((W, b), scipy.sparse.csr_array(x), y)
    with pytest.raises(ValueError, match="points needs to be a sparse matrix"):
        found.compare(x)
    with pytest.raises(ValueError, match="needs the shape of X"):
        found.compare(scipy.sparse.csr_array(x[:5]))


def test_images_and_large_numbers():
    """Any shape (n, ...); in the L2 ball no square overflows."""
    x, y, W, b = problem()
    images = x.reshape(-1, 2, 3)
    found = advlinear.attack(lambda X: X.reshape(len(X), -1) @ W.T + b, images, y, "2")
    assert np.nanmax(found.compare(found.perturbed()).excess) <= 2e-6
    with pytest.raises(ValueError, match=r"needs the shape of X, \(40, 2, 3\)"):
        found.compare(x)
    far = np.array([[3e200, 4e200]])
    size = advlinear.attack(([1.0, 1.0], 0.0), [[1.0, 1.0]], [1], "2").compare(far).size
    assert size == pytest.approx([5e200], rel=1e-12)


def test_a_tie_is_adversarial_towards_a_target_too():
    W, b = np.eye(3), np.zeros(3)
    found = advlinear.attack((W, b), [[3.0, 1.0, 0.0]], None, "2", target=1)
    comparison = found.compare([[2.0, 2.0, 0.0]])
    assert comparison.adversarial.tolist() == [True]
    assert abs(comparison.excess[0]) <= 1e-7
    assert found.compare([[1.0, 2.0, 2.5]]).adversarial.tolist() == [False]  # class 2, not 1


def test_a_tie_that_rounding_makes_at_the_edge_of_the_box_refutes_nothing():
    """The score is x - b in float32, and float32 cannot tell the low edge of the box from b. So at
    the edge there is a tie, and whether a radius is inf is a matter of rounding."""

    def score(X):
        return np.float32(X[:, 0]) - np.float32(0.1)

    low, x = float(np.float32(0.1)) + 1e-9, np.random.default_rng(0).uniform(0.2, 1, (50, 1))
    found = advlinear.attack(score, x, np.ones(50), box=(low, 1))
    assert np.isinf(found.radii).any()
    comparison = found.compare(np.full(x.shape, low))
    assert comparison.adversarial.all()
    assert np.isnan(comparison.excess[np.isinf(found.radii)]).all()


def test_a_frame_is_no_point_of_an_array():
    """Its columns could be in any order."""
    found = advlinear.attack((np.ones(2), -1.0), np.eye(2) * 3, [1, 1])
    with pytest.raises(ValueError, match=r"points needs to be an array, as X is"):
        found.compare(pd.DataFrame(found.perturbed()))
