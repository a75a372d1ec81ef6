"""Other solvers on the problems of `advlinear.minimise`, as benchmark.py compares them.

HiGHS on the whole linear program, Clarabel through cvxpy, and liblinear and saga of scikit-learn,
which solve another problem. Each function returns a robust loss, or NaN where its solver ends with
no weights. y holds -1 and 1, or the whole numbers from 0 to K - 1 for several classes.
"""

from __future__ import annotations

import contextlib
import itertools
import warnings

import numpy as np
import scipy.optimize
from scipy import sparse

import advlinear

MOST_ROUNDS = 200  # of scikit-learn's solvers


def loss_of(x, y, w, b, eps: float, norm: str, loss: str) -> float:
    """The robust loss of the weights, by the upper bound of `advlinear.certificate`."""
    nothing = np.zeros(np.shape(y) if np.ndim(w) == 1 else (len(y), len(w)))
    flow = None if np.ndim(w) == 1 else np.zeros((len(w), *np.shape(w)))
    return advlinear.certificate(x, y, w, b, nothing, eps, norm, loss, flow=flow)["primal"]


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
    import cvxpy

    w, b = cvxpy.Variable(x.shape[1]), cvxpy.Variable()
    size = cvxpy.norm(w, {"inf": 1, "2": 2, "1": "inf"}[norm])
    margins = cvxpy.multiply(y, x @ w + b) - eps * size
    losses = cvxpy.pos(1 - margins) if loss == "hinge" else cvxpy.logistic(-margins)
    _solve(cvxpy.Problem(cvxpy.Minimize(cvxpy.sum(losses) / len(y))), limit)
    return np.nan if w.value is None else loss_of(x, y, w.value, b.value, eps, norm, loss)


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
    dual_norm = {"inf": 1, "2": 2, "1": "inf"}[norm]
    pairs = itertools.combinations(range(K), 2)
    sizes = {(p, q): cvxpy.norm(W[p] - W[q], dual_norm) for p, q in pairs}
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
    margins = y * (x @ w) - eps * np.linalg.norm(w, ord={"inf": 1, "2": 2}[norm])

    def value(chosen):
        factor, bias = chosen
        worst = max(factor, 0) * margins + y * bias
        losses = np.maximum(0, 1 - worst) if loss == "hinge" else np.logaddexp(0, -worst)
        return losses.mean()

    precise = dict(xatol=1e-8, fatol=1e-12, maxiter=2000)
    best = scipy.optimize.minimize(value, (1.0, b), method="Nelder-Mead", options=precise)
    factor, bias = best.x
    return loss_of(x, y, max(factor, 0) * w, bias, eps, norm, loss)
