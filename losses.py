"""The losses of a linear model and their robust twins, as pure functions of tensors.

Notation: x (n, d) images in [0, 1], y (n,) labels in {-1, +1}, w (d,) weights, b bias,
logit f(x) = w.x + b, margin m = y f(x), eps the radius of the perturbation ball in pixel
units. Shifting an image by delta shifts its margin by y w.delta, so the worst case over a ball
costs exactly eps times the dual norm of w:

    min over ||delta||_p <= eps of y f(x + delta)  =  m - eps ||w||_q,    1/p + 1/q = 1.

Every function below is differentiable by TensorFlow, with subgradient 0 at the kinks of |w|.
"""

import tensorflow as tf


def margins(logits, y):
    """m = y f(x). logits (n, 1) or (n,), y (n,); returns (n,). Correct means m > 0."""
    return y * tf.reshape(logits, tf.shape(y))


def dual_norm(w, norm: str):
    """The norm dual to the ball's: ||w||_1 for "inf", ||w||_2 for "2", ||w||_inf for "1".

    w: any shape; returns a scalar.
    """
    if norm == "inf":
        return tf.reduce_sum(tf.abs(w))
    if norm == "1":
        return tf.reduce_max(tf.abs(w))
    if norm == "2":  # the inner where keeps the gradient at w = 0 finite
        square = tf.reduce_sum(w * w)
        return tf.where(square > 0, tf.sqrt(tf.where(square > 0, square, 1.0)), 0.0)
    raise ValueError(f"norm must be inf, 2 or 1, not {norm!r}")


def worst_case_margins(margins, w, eps, norm: str = "inf"):
    """The smallest margins within reach of an attack: m - eps ||w||_dual, shape (n,)."""
    return margins - eps * dual_norm(w, norm)


def worst_case_margins_in_box(margins, x, y, w, eps):
    """The smallest margins within the L-infinity ball where pixels also stay in [0, 1].

    m - sum_j |w_j| min(eps, c_j), where the room c_j is x_j if y w_j > 0, else 1 - x_j.

    x: (n, ...) images in [0, 1]; y, margins: (n,); w: (d, 1) or (d,). Returns (n,).
    """
    x = tf.reshape(x, [tf.shape(x)[0], -1])
    w = tf.reshape(w, [-1])
    down, up = tf.minimum(eps, x), tf.minimum(eps, 1.0 - x)  # how far each pixel can move
    plus, minus = tf.nn.relu(w), tf.nn.relu(-w)
    cost_of_ones = tf.linalg.matvec(down, plus) + tf.linalg.matvec(up, minus)
    cost_of_zeros = tf.linalg.matvec(down, minus) + tf.linalg.matvec(up, plus)
    return margins - tf.where(y > 0, cost_of_ones, cost_of_zeros)


def hinge(margins):
    """max(0, 1 - m), averaged over the batch (article, "Regular Binary Classification")."""
    return tf.reduce_mean(tf.maximum(0.0, 1.0 - margins))


def robust_hinge(margins, w, eps, norm: str = "inf"):
    """The largest hinge within the ball, averaged: max(0, 1 - (m - eps ||w||_dual)).

    The inner maximum of the article's min-max problem ("Towards Robust Binary
    Classification"), solved exactly: the knee moves from m = 1 outward to 1 + eps ||w||_dual.
    train.py calls the two functions one by one, as it records the worst-case margins, too.
    """
    return hinge(worst_case_margins(margins, w, eps, norm))


def logistic(margins):
    """log(1 + exp(-m)), averaged over the batch: the smooth twin of the hinge.

    Like the hinge it falls in the margin, so its worst case, too, is at the smallest margin.
    """
    return tf.reduce_mean(tf.nn.softplus(-margins))
