"""Other solvers on the problems of `advlinear.minimise`, as benchmark.py compares them.

HiGHS on the whole linear program, Clarabel through cvxpy, and liblinear and saga of scikit-learn,
which solve another problem. Each function returns a robust loss, or NaN where its solver ends with
no weights; those of `OF_THE_MEAN` return weights. y holds -1 and 1, or the whole numbers from 0 to
K - 1 for several classes.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.optimize
from scipy import sparse

import advlinear

MOST_ROUNDS = 200  # of scikit-learn's solvers
DUAL_NORM = {"inf": 1, "2": 2, "1": np.inf}


def loss_of(x, y, w, b, eps: float, norm: str, loss: str, budget: str = "each") -> float:
    """The robust loss of the weights, by the upper bound of `advlinear.certificate`."""
    nothing = np.zeros(np.shape(y) if np.ndim(w) == 1 else (len(y), len(w)))
    how = dict(norm=norm, loss=loss, budget=budget)
    if np.ndim(w) > 1:
        how["flow"] = np.zeros((len(w), *np.shape(w)))
    return advlinear.certificate(x, y, w, b, nothing, eps, **how)["primal"]


def whole_program(x, y, eps: float, limit: float = np.inf) -> float:
    """The least robust hinge in the L-infinity ball, by HiGHS.

    It is given the dual, whose variables are alpha and, for a sparse X, their sum.
    """
    n = len(y)
    if sparse.issparse(x):
        yx, price = sparse.csr_array(x).multiply(y[:, None]).T, np.full((x.shape[1], 1), eps)
        rows = sparse.block_array([[yx, -price], [-yx, -price]], format="csr")
        equations = sparse.csr_array(np.vstack([np.append(y, 0), np.append(np.ones(n), -1)]))
        bounds = [(0, 1 / n)] * n + [(0, None)]
    else:
        yx = y[:, None] * x[:, np.ptp(x, axis=0) > 0]
        rows, equations, bounds = np.hstack([yx - eps, -yx - eps]).T, y[None], (0, 1 / n)
    solved = scipy.optimize.linprog(
        -np.append(np.ones(n), np.zeros(rows.shape[1] - n)),
        rows,
        np.zeros(rows.shape[0]),
        equations,
        np.zeros(equations.shape[0]),
        bounds=bounds,
        method="highs",
        options=dict(time_limit=limit),
    )
    return -solved.fun if solved.status == 0 else np.nan


def conic_minimum(x, y, eps: float, norm="inf", loss="hinge", limit: float = np.inf) -> float:
    """The loss of the weights that Clarabel finds through cvxpy."""
    found = _by_clarabel(x, y, eps, norm, loss, "each", limit)
    return np.nan if found is None else loss_of(x, y, *found, eps, norm, loss)


def _by_clarabel(x, y, eps: float, norm: str, loss: str, budget: str, limit: float = np.inf):
    """The weights (d,) and the bias, or None if Clarabel ends with none."""
    import cvxpy

    w, b = cvxpy.Variable(x.shape[1]), cvxpy.Variable()
    reach = eps * cvxpy.norm(w, DUAL_NORM[norm])
    margins = cvxpy.multiply(y, x @ w + b) - (reach if budget == "each" else 0)
    losses = cvxpy.pos(1 - margins) if loss == "hinge" else cvxpy.logistic(-margins)
    total = cvxpy.sum(losses) / len(y) + (reach if budget == "mean" else 0)
    _solve(cvxpy.Problem(cvxpy.Minimize(total)), limit)
    return None if w.value is None else (w.value, float(b.value))


def _solve(program, limit: float) -> None:
    """Let Clarabel solve the program within so many seconds."""
    import cvxpy

    with warnings.catch_warnings(), contextlib.suppress(cvxpy.SolverError):
        warnings.simplefilter("ignore")  # of an inaccurate solution
        program.solve(solver="CLARABEL", time_limit=limit)


# --- several classes -------------------------------------------------------------------------


def joint_whole_program(x, y, eps: float, method: str, limit: float = np.inf) -> float:
    """The least robust hinge of several classes in the L-infinity ball, by HiGHS.

    The variables are W, b, t_pqj >= |w_pj - w_qj|,
    their sums over j, and the losses.
    """
    x = x[:, np.ptp(x, axis=0) > 0]
    (n, d), K = x.shape, y.max() + 1
    first, second = np.triu_indices(K, 1)
    pair, pairs = np.zeros((K, K), dtype=int), np.arange(len(first))
    pair[first, second] = pair[second, first] = pairs
    sample, rival = np.nonzero(np.arange(K) != y[:, None])
    own, options = y[sample], np.arange(len(sample))

    def chosen(columns, count: int):
        """A matrix with a 1 in each row, in these columns."""
        ones = np.ones(len(columns)), (np.arange(len(columns)), columns)
        return sparse.csr_array(ones, shape=(len(columns), count))

    entries = sparse.csr_array(x)[sample].tocoo()
    row, feature = entries.coords
    scores = [
        sparse.csr_array((entries.data, (row, side[row] * d + feature)), (len(options), K * d))
        for side in (own, rival)
    ]
    apart = sparse.kron(chosen(first, K) - chosen(second, K), sparse.eye_array(d))
    sizes, sums = sparse.eye_array(len(pairs) * d), sparse.eye_array(len(pairs))
    over_features = sparse.kron(sums, np.ones((1, d)))
    matrix = sparse.block_array(
        [
            [
                scores[1] - scores[0],
                chosen(rival, K) - chosen(own, K),
                None,
                eps * chosen(pair[own, rival], len(pairs)),
                -chosen(sample, n),
            ],
            [apart, None, -sizes, None, None],
            [-apart, None, -sizes, None, None],
            [None, None, over_features, -sums, None],
        ],
        format="csc",
    )
    free, others = K * (d + 1), len(pairs) * (d + 1) + n
    solved = scipy.optimize.linprog(
        np.repeat([0, 1 / n], [matrix.shape[1] - n, n]),
        matrix,
        np.repeat([-1.0, 0.0], [len(options), matrix.shape[0] - len(options)]),
        bounds=[(None, None)] * free + [(0, None)] * others,
        method=method,
        options=dict(time_limit=limit),
    )
    return solved.fun if solved.status == 0 else np.nan


def joint_conic_minimum(x, y, eps: float, norm="inf", loss="hinge", limit: float = np.inf):
    """The loss of the weights of several classes that Clarabel finds through cvxpy."""
    import cvxpy

    K = y.max() + 1
    W, b = cvxpy.Variable((K, x.shape[1])), cvxpy.Variable(K)
    pairs = itertools.combinations(range(K), 2)
    sizes = {(p, q): cvxpy.norm(W[p] - W[q], DUAL_NORM[norm]) for p, q in pairs}
    total = 0.0
    for own in range(K):
        samples = x[y == own]
        behind = [
            samples @ (W[k] - W[own]) + b[k] - b[own] + eps * sizes[min(k, own), max(k, own)]
            for k in range(K)
            if k != own
        ]
        if loss == "hinge":
            options = cvxpy.vstack([*(1 + one for one in behind), np.zeros(len(samples))])
            total += cvxpy.sum(cvxpy.max(options, axis=0))
        else:
            options = cvxpy.vstack([*behind, np.zeros(len(samples))])
            total += cvxpy.sum(cvxpy.log_sum_exp(options, axis=0))
    _solve(cvxpy.Problem(cvxpy.Minimize(total / len(y))), limit)
    return np.nan if W.value is None else loss_of(x, y, W.value, b.value, eps, norm, loss)


# --- scikit-learn ----------------------------------------------------------------------------


def penalised(x, y, eps: float, norm: str, loss: str, solver: str, C: float) -> float:
    """The robust loss of the best multiple of the weights that scikit-learn finds.

    liblinear and saga minimise C times the sum of the plain losses plus ||w||_1, which stands for
    the L-infinity ball, or ||w||_2^2 / 2 for the L2 ball. In the first liblinear takes the square
    of the hinge. Of its weights and bias the factor and the bias of least robust loss are taken.

    solver: "liblinear", or for the logistic loss also "saga".
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import LinearSVC

    if loss == "logistic":
        share = 1.0 if norm == "inf" else 0.0
        model = LogisticRegression(C=C, l1_ratio=share, solver=solver, max_iter=MOST_ROUNDS)
    elif norm == "inf":
        model = LinearSVC(C=C, penalty="l1", loss="squared_hinge", dual=False, max_iter=MOST_ROUNDS)
    else:
        model = LinearSVC(C=C, loss="hinge", dual=True, max_iter=MOST_ROUNDS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not converged
        model.fit(x, y)
    w, b = model.coef_[0], float(model.intercept_[0])
    margins = y * (x @ w) - eps * np.linalg.norm(w, ord=DUAL_NORM[norm])

    def value(chosen):
        factor, bias = chosen
        worst = max(factor, 0) * margins + y * bias
        losses = np.maximum(0, 1 - worst) if loss == "hinge" else np.logaddexp(0, -worst)
        return losses.mean()

    precise = dict(xatol=1e-8, fatol=1e-12, maxiter=2000)
    best = scipy.optimize.minimize(value, (1.0, b), method="Nelder-Mead", options=precise)
    factor, bias = best.x
    return loss_of(x, y, max(factor, 0) * w, bias, eps, norm, loss)


# --- a budget for all samples together ---------------------------------------------------------

# The least of the mean loss plus eps ||w||*, as of budget="mean", of which these find the weights
# (d,) and the bias, or None. The bias is free, but for liblinear. The tolerances of liblinear and
# of skglm's logistic loss are the largest powers of ten for which they come within 1e-6 of the
# minimum on all problems of benchmark.py, and liblinear with each of five seeds.


def _liblinear(x, y, eps: float, norm: str, loss: str):
    """It adds the size of the bias, divided by intercept_scaling, to ||w||_1."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(
        C=1 / (len(y) * eps),
        l1_ratio=1.0,
        solver="liblinear",
        intercept_scaling=1e4,
        tol=1e-7,
        max_iter=10_000,
        random_state=0,
    )
    model.fit(x, y)
    return model.coef_[0], float(model.intercept_[0])


def _skglm(x, y, eps: float, norm: str, loss: str):
    """Of the 2-norm all features are one group; the hinge is a pinball loss, its bias a weight."""
    from skglm import SparseLogisticRegression, datafits, penalties, solvers
    from skglm.experimental.pdcd_ws import PDCD_WS
    from skglm.experimental.quantile_regression import Pinball
    from skglm.utils.data import grp_converter

    n, d = x.shape
    if norm == "inf" and loss == "logistic":
        model = SparseLogisticRegression(alpha=eps, tol=1e-6).fit(np.asfortranarray(x), y)
        return model.coef_.ravel(), float(np.ravel(model.intercept_)[0])
    varies = np.ptp(x, axis=0) > 0  # it divides by the size of each column
    w, columns, d = np.zeros(d), x[:, varies], int(varies.sum())
    if norm == "2":
        features, starts = grp_converter(d, d)
        fit = datafits.LogisticGroup(starts, features)
        penalty = penalties.WeightedGroupL2(eps, np.ones(1), starts, features)
        solver = solvers.GroupProxNewton(tol=1e-4, fit_intercept=True, max_iter=1000)
    else:
        fit, penalty = Pinball(1.0), penalties.WeightedL1(n * eps, np.append(np.ones(d), 0.0))
        solver = PDCD_WS(tol=1e-6)
        columns, y = np.column_stack([y[:, None] * columns, y]), np.ones(n)
    found = solver.solve(np.asfortranarray(columns), y, fit, penalty)[0]
    w[varies] = found[:-1]
    return w, float(found[-1])


def _highs(x, y, eps: float, norm: str, loss: str):
    """It is given the dual, whose variables are alpha."""
    n, d = x.shape
    yx = y[:, None] * x
    solved = scipy.optimize.linprog(
        -np.ones(n),
        np.hstack([yx, -yx]).T,
        np.full(2 * d, eps),
        y[None],
        np.zeros(1),
        bounds=(0, 1 / n),
        method="highs",
    )
    if solved.status:
        return None
    above, below = np.split(-solved.ineqlin.marginals, 2)
    return above - below, -float(solved.eqlin.marginals[0])


def _clarabel(x, y, eps: float, norm: str, loss: str):
    return _by_clarabel(x, y, eps, norm, loss, "mean")


def _dro(x, y, eps: float, norm: str, loss: str):
    """Its Wasserstein model whose labels cannot change; it, too, calls Clarabel through cvxpy."""
    from dro.linear_model.wasserstein_dro import WassersteinDRO, WassersteinDROError

    model = WassersteinDRO(x.shape[1], model_type="svm" if loss == "hinge" else "logistic")
    model.update(dict(eps=eps, p="inf" if norm == "inf" else int(norm), kappa="inf"))
    try:
        model.fit(x, y)
    except WassersteinDROError:
        return None
    return model.theta, float(model.b)


def _rsome(x, y, eps: float, norm: str, loss: str):
    """It is given the set of distributions, and finds the linear program by itself."""
    from rsome import E, dro, lpg_solver, maxof
    from rsome import norm as size

    n, d = x.shape
    model = dro.Model(n)  # a scenario for each sample
    w, b = model.dvar(d), model.dvar()
    moved, label, distance = model.rvar(d), model.rvar(), model.rvar()  # moved: y times a sample
    given = model.ambiguity()
    for i in range(n):
        given[i].suppset(size(moved - y[i] * x[i], "inf") <= distance, label == y[i])
    given.exptset(E(distance) <= eps)
    given.probset(model.p == 1 / n)
    model.minsup(E(maxof(0, 1 - w @ moved - b * label)), given)
    model.solve(lpg_solver, display=False)
    return w.get(), float(b.get())


class Rival(NamedTuple):
    """A solver and what it takes.

    package: what has to be installed. problems: pairs of norm and loss. largest: of how many
    numbers X may be. weights: (x, y, eps, norm, loss) -> (w, b), or None; x is float64.
    """

    name: str
    package: str
    problems: tuple[tuple[str, str], ...]
    largest: float
    weights: Callable

    def takes(self, x, norm: str, loss: str) -> bool:
        return (norm, loss) in self.problems and x.size <= self.largest

    def installed(self) -> bool:
        return importlib.util.find_spec(self.package) is not None


_HINGE, _LOGISTIC = ("inf", "hinge"), ("inf", "logistic")
_ALL = _HINGE, _LOGISTIC, ("2", "hinge"), ("2", "logistic")
OF_THE_MEAN = (
    Rival("liblinear", "sklearn", (_LOGISTIC,), np.inf, _liblinear),
    Rival("skglm", "skglm", (_HINGE, _LOGISTIC, ("2", "logistic")), np.inf, _skglm),
    Rival("HiGHS", "scipy", (_HINGE,), np.inf, _highs),
    Rival("Clarabel", "cvxpy", _ALL, np.inf, _clarabel),
    Rival("dro", "dro", _ALL, np.inf, _dro),
    Rival("RSOME", "rsome", (_HINGE,), 2e4, _rsome),
)
