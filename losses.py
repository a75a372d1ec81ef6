"""The hinge and the robust hinge of a linear model, as pure functions of tensors.

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


def hinge(margins):
    """max(0, 1 - m), averaged over the batch (article, "Regular Binary Classification")."""
    return tf.reduce_mean(tf.maximum(0.0, 1.0 - margins))


def robust_hinge(margins, w, eps, norm: str = "inf"):
    """The largest hinge within the ball, averaged: max(0, 1 - (m - eps ||w||_dual)).

    The inner maximum of the article's min-max problem ("Towards Robust Binary
    Classification"), solved exactly: the knee moves from m = 1 outward to 1 + eps ||w||_dual.
    """
    return hinge(worst_case_margins(margins, w, eps, norm))
