"""Arguments are read as they were meant, or refused in one line that names them."""

import decimal
import fractions

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

import advlinear
from advlinear import RobustClassifier

RANDOM = np.random.default_rng(0)
X, W, B = RANDOM.random((12, 3)), np.float64([[1, -2, 0.5], [-1, 1, 2]]), np.float64([0.3, -0.4])
Y = (X @ W.T + B).argmax(axis=1)
X[:2], Y[:2] = X[2:4], 1 - Y[2:4]  # two are wrong, so that no minimum of the hinge is 0
ONES = np.ones(3)


def attack(**change):
    return advlinear.attack(**dict(model=(W, B), X=X, y=Y) | change)


def minimise(**change):
    return advlinear.minimise(**dict(X=X, y=Y, eps=0.01) | change)


def proved(**change):
    return advlinear.certificate(**dict(X=X, y=Y, w=ONES, b=0, alpha=Y / 12, eps=0.01) | change)


def fitted(**change):
    box = change.pop("box", None)
    return RobustClassifier(0.01, box=box).fit(**dict(X=X, y=Y) | change)


# name in the message, values that are right, and the call that gets them
ARGUMENTS = {
    "attack X": ("X", X, lambda values: attack(X=values)),
    "attack y": ("y", Y, lambda values: attack(y=values)),
    "W": ("(W, b)", W, lambda values: attack(model=(values, B))),
    "b": ("(W, b)", B, lambda values: attack(model=(W, values))),
    "scale": ("scale", ONES, lambda values: attack(scale=values)),
    "low": ("box", 0 * ONES, lambda values: attack(box=(values, 1))),
    "high": ("box", 0 * X + 1, lambda values: attack(box=(0, values))),
    "target": ("target", Y, lambda values: attack(target=values)),
    "eps of curve": ("eps", ONES / 9, lambda values: attack().curve(values)),
    "eps of perturbed": ("eps", Y / 9, lambda values: attack().perturbed(values)),
    "eps of a path": (
        "eps",
        ONES / 9,
        lambda values: advlinear.path(X, Y, 0.05, 0.2).bounds(values),
    ),
    "minimise X": ("X", X, lambda values: minimise(X=values)),
    "minimise y": ("y", Y, lambda values: minimise(y=values)),
    "minimise eps": ("eps", np.float64(0.01), lambda values: minimise(eps=values[()])),
    "minimise sample_weight": ("sample_weight", Y + 1, lambda v: minimise(sample_weight=v)),
    "minimise low": ("box", 0 * ONES, lambda values: minimise(box=(values, 1))),
    "certificate w": ("w", ONES, lambda values: proved(w=values)),
    "certificate b": ("b", np.float64(1), lambda values: proved(b=values)),
    "certificate alpha": ("alpha", Y / 12, lambda values: proved(alpha=values)),
    "fit X": ("X", X, lambda values: fitted(X=values)),
    "fit y": ("y", Y, lambda values: fitted(y=values)),
    "fit sample_weight": ("sample_weight", Y + 1, lambda v: fitted(sample_weight=v)),
    "fit high": ("box", ONES, lambda values: fitted(box=(0, values))),
    "predict X": ("X", X, lambda values: fitted().predict(values)),
}
SPOILED = {
    "masked": lambda values: np.ma.masked_array(values, mask=np.arange(values.size) == 0),
    "complex": lambda values: values + 1j,
    "dates": lambda values: np.asarray(values).astype(np.int64).astype("datetime64[D]"),
    "durations": lambda values: np.asarray(values).astype(np.int64).astype("timedelta64[D]"),
}
REASONS = {
    "masked": "masked array|must be a finite number",
    "complex": "complex|Complex data not supported|must be a finite number",
    "dates": "dates or durations|must be a finite number|Unknown label type",
    "durations": "dates or durations|must be a finite number|Unknown label type",
}


def spoiled(values, kind, objects):
    """As an array of a type of its own, or of objects."""
    found = SPOILED[kind](values)
    if not objects or not values.ndim:
        return found
    if kind == "masked":
        return found.astype(object)
    every = np.empty(values.shape, object)
    every.flat[:] = [*found.flat]
    return every


@pytest.mark.parametrize("objects", [False, True], ids=["typed", "objects"])
@pytest.mark.parametrize("kind", SPOILED)
@pytest.mark.parametrize("argument", ARGUMENTS)
def test_masked_complex_and_dates_are_refused_in_every_argument(argument, kind, objects):
    name, values, call = ARGUMENTS[argument]
    call(values)
    with pytest.raises(ValueError, match=REASONS[kind]) as error:
        call(spoiled(values, kind, objects))
    if str(error.value).startswith("Complex data not supported"):  # as its checks demand
        assert argument in ("fit X", "fit y", "predict X")
    else:
        assert "\n" not in str(error.value)
        assert name in str(error.value) or "label" in str(error.value)


@pytest.mark.parametrize("objects", [False, True], ids=["typed", "objects"])
@pytest.mark.parametrize("kind", SPOILED)
def test_masked_complex_and_dates_are_refused_as_scores(kind, objects):
    with pytest.raises(ValueError, match=REASONS[kind]) as error:
        attack(model=lambda points: spoiled(points @ W.T + B, kind, objects))
    assert "what the model returns" in str(error.value)


def test_masked_rows_in_a_list_and_complex_columns_are_refused():
    rows = [np.ma.masked_array(row, mask=[1, 0, 0]) for row in X]
    with pytest.raises(ValueError, match="X is a masked array"):
        attack(X=rows)
    frame = pd.DataFrame(X, columns=list("abc")).assign(b=X[:, 1] + 1j)
    with pytest.raises(ValueError, match="column 'b' of X holds complex numbers"):
        attack(X=frame)
    with pytest.raises(ValueError, match="X holds complex numbers"):
        minimise(X=frame)
    dates = pd.DataFrame(dict.fromkeys("abc", pd.date_range("2020", periods=12)))
    for call in (minimise, fitted, attack):
        with pytest.raises(ValueError, match=r"dates|X has no column of numbers"):
            call(X=dates)


def test_real_numbers_of_any_type_are_the_same_numbers():
    """To the last bit; text is none."""
    whole = np.rint(8 * X)
    known = attack(X=whole, scale=2 * ONES, box=(-1, 9)).radii
    for kind in (np.float32, np.int8, "longdouble", fractions.Fraction, decimal.Decimal):
        if kind in (fractions.Fraction, decimal.Decimal):
            convert = np.vectorize(lambda value, kind=kind: kind(float(value)), otypes=[object])
        else:
            convert = lambda values, kind=kind: values.astype(kind)  # noqa: E731
        found = attack(X=convert(whole), scale=convert(2 * ONES), box=(-1, convert(9 * ONES)))
        assert (found.radii == known).all()
    with pytest.raises(ValueError, match="X needs to be an array"):
        attack(X=[[1, 2, 3], [1, 2]])
    for text in (whole.astype(str), whole.astype(str).astype(object)):
        with pytest.raises(ValueError, match="X needs real numbers"):
            attack(X=text)


# --- names ---------------------------------------------------------------------------------------

FRAME = pd.DataFrame(X, columns=list("abc"), index=[f"row {i}" for i in range(12)])
BACK = list("cab")


def same(found, other):
    assert (found.radii == other.radii).all()
    assert np.isfinite(found.radii).any()
    assert (np.asarray(found.perturbed()) == np.asarray(other.perturbed())).all()


def test_a_scale_is_read_by_the_names_of_the_columns():
    scale = np.float64([0, 1, 3])
    by_name = attack(X=FRAME, scale=pd.Series(scale, list("abc"))[BACK])
    same(by_name, attack(scale=scale))
    assert (by_name.perturbed()["a"] == FRAME["a"]).all()  # the frozen one


def test_the_sides_of_a_box_are_read_by_names():
    low, high = X - [0.1, 0.2, 0.3], X.max(axis=0) + np.float64([0.3, 0.1, 0.2])
    frame = pd.DataFrame(low, FRAME.index, FRAME.columns)
    series = pd.Series(high, FRAME.columns)
    known = attack(box=(low, high))
    same(attack(X=FRAME, box=(frame, series)), known)
    same(attack(X=FRAME, box=[frame[BACK], series[BACK]]), known)
    same(attack(X=FRAME, box=(frame[BACK].iloc[::-1], series[BACK])), known)
    same(attack(X=FRAME, box=(low, high)), known)  # arrays go by place
    mixed = FRAME.assign(job="x").loc[:, ["c", "job", "a", "b"]]  # three columns of numbers
    model = lambda table: table[["a", "b", "c"]].to_numpy() @ W.T + B  # noqa: E731
    found = attack(model=model, X=mixed, box=(frame, series), scale=pd.Series(ONES, list("abc")))
    np.testing.assert_allclose(found.radii, known.radii, rtol=1e-12)


def test_names_in_the_box_of_a_minimum_and_of_the_classifier():
    x = np.clip(np.random.default_rng(1).uniform(-0.3, 1.3, (60, 3)), 0, 1)
    y, low, high = (x @ [2, 1, 0.5] > 1.8).astype(int), np.float64([0, -1, -0.1]), np.ones(3)
    frame = pd.DataFrame(x, columns=list("abc"))
    known = dict(eps=0.2, loss="logistic")  # a loss to which every sample adds
    by_place = advlinear.minimise(x, y, **known, box=(low, high)).primal
    assert by_place != advlinear.minimise(x, y, **known, box=(low[[2, 0, 1]], high)).primal
    box = pd.Series(low, frame.columns)[BACK], pd.Series(high, frame.columns)[BACK]
    assert advlinear.minimise(frame, y, **known, box=box).primal == by_place
    classifier = RobustClassifier(**known, box=box).fit(frame, y)
    assert classifier.certificate_[0].primal == by_place
    assert classifier.box is box  # as scikit-learn wants parameters
    for refusing in (classifier.fit, lambda X, y: advlinear.minimise(X, y, 0.2, box=box)):
        with pytest.raises(ValueError, match="box has column names, but X has none"):
            refusing(x, y)
        with pytest.raises(ValueError, match="box lacks column 'd' of X"):
            refusing(frame.rename(columns=dict(c="d")), y)
    scale = pd.Series([0, 1, 1.0], list("abc"))[BACK]
    model = LogisticRegression().fit(frame, y)
    by_hand = advlinear.attack(model, frame, y, scale=np.float64([0, 1, 1])).curve(0.1)
    assert by_hand != advlinear.attack(model, frame, y, scale=np.float64([1, 0, 1])).curve(0.1)
    assert advlinear.robust_accuracy(0.1, scale=scale)(model, frame, y) == by_hand


NAMES = [
    (dict(scale=pd.Series([1.0, 1], list("ab"))), "scale lacks column 'c' of X"),
    (dict(scale=pd.Series(1.0, list("abcd"))), "scale has column 'd', which is no column of num"),
    (dict(scale=pd.Series(ONES)), "scale lacks column 'a' of X: add it, or pass scale as an array"),
    (dict(scale=pd.Series(ONES, list("aab"))), "scale has column 'a' more than once"),
    (dict(X=FRAME.set_axis(list("aab"), axis=1), scale=pd.Series(1.0, list("ab"))), "X has column"),
    (dict(X=FRAME.assign(c="x"), scale=pd.Series(1.0, list("abc"))), "'c', which is no column of"),
    (dict(X=X, scale=pd.Series(ONES, list("abc"))), "scale has column names, but X has none"),
    (dict(X=X, scale=pd.Series(ONES, [1, 0, 2])), "scale has column names, but X has none"),
    (dict(X=scipy.sparse.csr_array(X), scale=pd.Series(1.0, list("abc"))), "but X has none"),
    (dict(box=(pd.Series({"a": 0.0}), 2)), "box lacks column 'b' of X"),
    (dict(box=(0, FRAME.reset_index(drop=True) + 1)), "box lacks row 'row 0' of X"),
    (dict(box=(0, FRAME.rename(columns=dict(a="z")) + 1)), "box lacks column 'a' of X"),
    (dict(box=(0, pd.concat([FRAME, FRAME]) + 1)), "box has row 'row 0' more than once"),
    (dict(X=X, box=(0, FRAME + 1)), "box has row names, but X has none"),
    (
        dict(box=FRAME.describe().loc[["min", "max"]]),
        r"box needs \(low, high\), not a DataFrame: pass \(box.loc\['min'\], box.loc\['max'\]\)$",
    ),
    (dict(box=pd.DataFrame({0: [0, 1.0], 1: [0, 1.0]})), r"pass \(box.loc\[0\], box.loc\[1\]\)$"),
    (dict(box=pd.DataFrame({0: [0, 1, 2]})), r"pass \(box.iloc\[0\], box.iloc\[1\]\)$"),
    (dict(box={0: 0, 1: 1}), r"box needs \(low, high\)"),
    (dict(model=(pd.Series(ONES, list("abd")), 0)), r"\(W, b\) lacks column 'c' of X"),
    (dict(X=X, model=(pd.Series(ONES, list("abc")), 0)), r"\(W, b\) has column names, but X"),
    (
        dict(model=(pd.DataFrame(W, ["no", "yes"], list("abc")), B)),
        "the index of W needs to be 0 to 1",
    ),
    (dict(model=(W, pd.Series(B, ["yes", "no"]))), "the index of b needs to be 0 to 1"),
]


@pytest.mark.parametrize(("change", "message"), NAMES)
def test_a_name_that_is_missing_unknown_or_there_twice_is_refused(change, message):
    with pytest.raises(ValueError, match=message) as error:
        attack(**dict(X=FRAME) | change)
    assert "\n" not in str(error.value)


def test_weights_are_read_by_the_names_of_the_columns():
    """In a pair, in a frame (K, d) with its classes, and in a certificate."""
    w, known = np.float64([1, -2, 0.5]), attack()
    matrix = pd.DataFrame(W, columns=list("abc"))
    two = attack(model=(w, 0.3), X=X)
    same(attack(model=(pd.Series(w, list("abc"))[BACK], 0.3), X=FRAME), two)
    same(attack(model=(w, 0.3), X=FRAME), two)
    mixed = FRAME.assign(job="x").loc[:, ["c", "job", "a", "b"]]
    found = attack(model=(pd.Series(w, list("abc")), 0.3), X=mixed)
    np.testing.assert_allclose(found.radii, two.radii, rtol=1e-12)
    same(attack(model=(matrix[BACK], B), X=FRAME), known)
    same(attack(model=(matrix.loc[[1, 0], BACK], pd.Series(B)[[1, 0]]), X=FRAME), known)
    same(attack(model=(pd.DataFrame(W), B)), known)
    best = minimise()
    for given in (best.w, pd.Series(best.w, list("abc"))[BACK]):
        proof = proved(X=FRAME, w=given, b=best.b, alpha=best.alpha)
        assert (proof["primal"], proof["dual"]) == (best.primal, best.dual)


def test_a_minimum_keeps_the_names_of_its_features():
    best = minimise(X=FRAME)
    assert best.names.tolist() == list("abc")
    assert minimise().names is None
    known = attack(model=minimise(), X=X, y=Y)
    for given in (FRAME, FRAME[BACK], X, FRAME.assign(job="x")[["c", "job", "b", "a"]]):
        radii = attack(model=best, X=given, y=Y).radii
        np.testing.assert_allclose(radii, known.radii, rtol=1e-12)
    with pytest.raises(ValueError, match="lacks column 'd' of X"):
        attack(model=best, X=FRAME.assign(d=1.0))


def test_without_names_the_default_index_goes_by_place():
    scale, low = np.float64([0, 1, 3]), X - 0.1
    known = attack(scale=scale, box=(low, 2))
    same(attack(scale=pd.Series(scale), box=(pd.DataFrame(low), pd.Series(2 * ONES))), known)


def test_labels_and_weights_go_by_place():
    y, weight = pd.Series(Y, np.arange(12)[::-1]), pd.Series(Y + 1, np.arange(12)[::-1])
    same(attack(X=FRAME, y=y), attack())
    same(attack(X=FRAME, y=y, target=y), attack(target=Y))
    assert (
        minimise(X=FRAME, y=y, sample_weight=weight).primal == minimise(sample_weight=Y + 1).primal
    )


# --- what a model says ---------------------------------------------------------------------------


class Shifted:
    """A classifier that adds a shift (K,) to its scores before it predicts the largest."""

    def __init__(self, W, b, shift):
        self.W, self.b, self.shift, self.classes_ = W, b, shift, np.arange(len(b))

    def decision_function(self, points):
        return points @ self.W.T + self.b

    def predict(self, points):
        return (self.decision_function(points) + self.shift).argmax(axis=1)


@pytest.mark.parametrize("norm", ["inf", "2", "1"])
def test_what_the_model_predicts_has_the_last_word(norm):
    """Whether with a target or without, in a box or not, where the samples themselves do not show
    the shift: the radii are those of the shifted scores, or refused. Without a shift none is."""
    refused = taken = 0
    for seed in range(60):
        random = np.random.default_rng(seed)
        k, d = random.integers(2, 4), random.integers(1, 5)
        W, b, shift = random.normal(size=(k, d)), random.normal(size=k), np.zeros(k)
        shift[random.integers(k)] = random.choice([-1, 1]) * random.choice([1, 0.1, 1e-3])
        x = random.random((8, d))
        x = x[Shifted(W, b, shift).predict(x) == (x @ W.T + b).argmax(axis=1)]
        if not len(x):
            continue
        for box in (None, (0, 1)):
            for target in (None, random.integers(k)):
                known = (x, (x @ W.T + b).argmax(axis=1), norm, box, None, None, target)
                advlinear.attack(Shifted(W, b, 0 * shift), *known)
                expected = advlinear.attack((W, b + shift), *known).radii
                try:
                    found = advlinear.attack(Shifted(W, b, shift), *known).radii
                except ValueError:
                    refused += 1
                else:  # a class that no sample comes near may be shifted
                    np.testing.assert_allclose(found, expected, rtol=1e-5)
                    taken += 1
    assert refused > 50
    assert taken > 5


def test_weights_with_the_threshold_subtracted_are_what_a_threshold_of_its_own_needs():
    """As the refusal says: then the radii are those of what the model predicts."""
    model = FixedThresholdClassifier(LogisticRegression(), threshold=0.9).fit(X, Y)
    own = model.predict(X)
    with pytest.raises(ValueError, match=r"its largest score: .* if it has a threshold, subtract"):
        advlinear.attack(model, X, own)
    w, b = model.estimator_.coef_[0], model.estimator_.intercept_[0] - np.log(0.9 / 0.1)
    moved = advlinear.attack((w, b), X, own).perturbed()
    assert (model.predict(moved) != own).all()


def test_weights_in_a_list_or_without_a_bias_are_refused_by_what_to_pass():
    w = np.float64([1, -2, 0.5])
    for model in ([w, 0.3], [W, B], [1.0, -2.0, 0.5]):
        with pytest.raises(ValueError, match=r"a list is no model: make it a tuple, \(W, b\) or"):
            attack(model=model)
    for model in (w, W, pd.Series(w), pd.DataFrame(W), scipy.sparse.csr_array(W)):
        with pytest.raises(ValueError, match=r"weights alone are no model: pass \(W, b\) or"):
            attack(model=model)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_the_message_of_another_library_ends_with_one_mark():
    steps = FunctionTransformer(np.log1p), LogisticRegression()
    model = make_pipeline(*steps).fit(X, Y)
    with pytest.raises(ValueError, match="contains NaN, away from X: give a box that features"):
        attack(model=model, y=model.predict(X))


@pytest.mark.parametrize("threshold", [0.3, 0.7])
def test_a_threshold_of_its_own_is_refused_with_a_target_too(threshold):
    random = np.random.default_rng(0)
    x = random.normal(size=(200, 3))
    y = (x @ [1, 2, -1] + random.normal(size=200) / 2 > 0).astype(int)
    model = FixedThresholdClassifier(LogisticRegression(), threshold=threshold).fit(x, y)
    own, margin = model.predict(x), model.decision_function(x)
    x, own = x[own == (margin > 0)], own[own == (margin > 0)]
    for target in (None, 0, 1):
        for box in (None, (-9, 9)):
            with pytest.raises(ValueError, match=r"does not predict the class|just (below|above)"):
                advlinear.attack(model, x, own, "2", box, target=target)
    favoured = own != int(threshold > 0.5)
    x, own = x[~favoured], own[~favoured]
    x, own = x[[0]], own[[0]]
    gap, w = np.log(1 / threshold - 1), model.estimator_.coef_[0]
    x = x - (model.decision_function(x) + 1.001 * gap) * w / (w @ w)  # just right, by predict
    assert model.predict(x) == own
    box = x - 0.5 * abs(gap) / abs(w).sum(), x + 0.5 * abs(gap) / abs(w).sum()
    for target in (None, 1 - own[0]):  # by its scores nothing in the box flips it
        with pytest.raises(ValueError, match="does not predict the class of its largest score"):
            advlinear.attack(model, x, own, box=box, target=target)


# --- what rounding hides, and what overflows -----------------------------------------------------

FAINT = [
    lambda points: 1 + 1e-30 * points[:, 0],
    lambda points: np.stack([1 + 0 * points[:, 0], 1e-30 * points[:, 1]], axis=1),
]


@pytest.mark.parametrize("function", FAINT)
@pytest.mark.parametrize("norm", ["inf", "2", "1", "0"])
def test_weights_below_the_rounding_of_a_bias(function, norm):
    """As (W, b) the radius is 1e30. A function hides them, which matters but in a small box."""
    y = np.zeros(12, int) + (np.ndim(function(X)) == 1)
    if norm != "0":
        found = advlinear.attack((np.float64([1e-30, 0, 0]), 1.0), X, np.ones(12, int), norm)
        np.testing.assert_allclose(found.radii, 1e30, rtol=1e-12)
    for box in (None, (0, np.inf), (-1e40, 1e40)):
        for target in (None,) if norm == "0" else (None, 1 - y[0]):
            known = function, X, y, norm, box, None, None, target
            if norm == "0" and function is FAINT[1]:  # one feature is enough, whatever its weight
                assert (advlinear.attack(*known).radii == 1).all()
                continue
            with pytest.raises(ValueError, match=r"lost in the rounding|too coarse for the radius"):
                advlinear.attack(*known)
    assert np.isinf(advlinear.attack(function, X, y, norm, (0, 1)).radii).all()


OVERFLOWS = [
    (dict(scale=1e308 * ONES, box=(0, 1)), "scale needs 0 or numbers from 1e-100 to 1e100"),
    (dict(scale=1e-310 * ONES), "scale needs 0 or numbers from 1e-100 to 1e100"),
    (dict(model=(4e307 * W, B)), r"\(W, b\) holds numbers above 1e301"),
    (dict(model=(W, 1e308 * B)), r"\(W, b\) holds numbers above 1e301"),
    (dict(box=(-1.7e308, 1.7e308)), "box holds numbers above 1e301"),
    (dict(X=np.r_[1.7e308 * X[:6], -1.7e308 * X[6:]]), "X holds numbers above 1e301"),
    (dict(model=(1e205 * W, B), scale=1e100 * ONES), "W in units of the scale holds numbers above"),
    (dict(X=1e205 * X, scale=1e-100 * ONES), "X in units of the scale holds"),
    (dict(model=(1e-300 * W, 1e10 * B), y=np.zeros(12, int)), "the radius of sample 0 overflows"),
    (dict(model=lambda points: 1e308 * np.sign(points @ W.T + B)), "returns holds numbers above"),
]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(("change", "message"), OVERFLOWS)
def test_what_overflows_is_refused(change, message):
    with pytest.raises(ValueError, match=message) as error:
        attack(**change)
    assert "\n" not in str(error.value)


def test_a_minimum_refuses_samples_that_overflow():
    with pytest.raises(ValueError, match="X holds numbers above 1e301"):
        minimise(X=np.r_[1.7e308 * X[:6], -1.7e308 * X[6:]])
    with pytest.raises(ValueError, match="box holds numbers above 1e301"):
        minimise(box=(-1.7e308, 1.7e308))


# --- what is kept is copied ----------------------------------------------------------------------

TABLE = pd.DataFrame(X, columns=list("abc"))
KEPT = {
    "array": lambda: X.copy(),
    "images": lambda: X.copy().reshape(12, 3, 1),
    "float32": lambda: np.float32(X),
    "frame": lambda: TABLE.copy(),
    "frame with text": lambda: TABLE.assign(job="x"),
    "csr": lambda: scipy.sparse.csr_array(X),
    "csc": lambda: scipy.sparse.csc_matrix(X),
}


def spoil(values):
    """Change all numbers of an array, a frame or a sparse matrix in place."""
    if isinstance(values, pd.DataFrame):
        for j in range(values.shape[1]):
            for i in range(len(values)):
                values.iloc[i, j] = "y" if isinstance(values.iloc[i, j], str) else -9.0
    elif scipy.sparse.issparse(values):
        values.data[:], values.indices[:] = -9, 0
    else:
        values[:] = -9


def plain(values):
    return values.toarray() if scipy.sparse.issparse(values) else np.asarray(values)


@pytest.mark.parametrize("kind", KEPT)
@pytest.mark.parametrize("target", [None, 0])
def test_what_was_passed_may_change_after_the_attack(kind, target):
    samples, scale, low, high = KEPT[kind](), np.float64([1, 2, 3]), 0 * X - 1, 2 * ONES
    weights, bias, y = W.copy(), B.copy(), Y.copy()
    if kind == "images":
        low, high, scale = (one.reshape(*one.shape, 1) for one in (low, high, scale))
    passed = (samples, scale, low, high, weights, bias, y)
    if target is not None and scipy.sparse.issparse(samples):
        return  # is refused
    found = attack(
        model=(weights, bias), X=samples, y=y, scale=scale, box=(low, high), target=target
    )
    before = plain(found.perturbed()), plain(found.perturbed(0.1)), found.curve(0.1)
    for values in passed:
        spoil(values)
    after = plain(found.perturbed()), plain(found.perturbed(0.1)), found.curve(0.1)
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", [np.array, pd.DataFrame, scipy.sparse.csr_array])
def test_a_model_may_work_in_place(kind):
    """Scalers with copy=False change what they are given: the radii are those of one that copies,
    and X stays as it was."""
    given, radii = kind(X), []
    for copy in (True, False):
        scaler = StandardScaler(copy=copy, with_mean=kind is not scipy.sparse.csr_array)
        model = make_pipeline(scaler, LogisticRegression()).fit(X.copy(), Y)
        for box in (None, (0, 1)):
            radii.append(attack(model=model, X=given, box=box).radii)
    assert (np.array(radii[:2]) == radii[2:]).all()
    assert (plain(given) == X).all()


def test_the_weights_that_whole_steps_ask_and_the_box_of_a_minimum_are_copied():
    low, high, weights, bias = 0 * ONES, 2 * ONES, W.copy(), B.copy()
    best, found = minimise(box=(low, high)), attack(model=(weights, bias), X=np.rint(8 * X))
    known = found.perturbed(step=1)
    for values in (low, high, weights, bias):
        spoil(values)
    assert (found.perturbed(step=1) == known).all()
    assert (best.box[0] == 0).all()
    assert (best.box[1] == 2).all()
