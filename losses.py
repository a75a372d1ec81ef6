"""The losses of a linear model and their robust twins, as pure functions of tensors.

Notation: x (n, d) images in [0, 1], y (n,) labels in {-1, +1}, w (d,) weights, b bias,
logit f(x) = w.x + b, margin m = y f(x), eps the radius of the perturbation ball in pixel units.
A perturbation delta changes the margin by y w.delta. The worst one in a ball lowers it by exactly
eps times the dual norm of w, and the largest loss is the loss of the smallest margin:

    min over ||delta||_p <= eps of y f(x + delta)  =  m - eps ||w||_q,    1/p + 1/q = 1,
    robust hinge  =  hinge(worst_case_margins(m, ...))  =  max(0, 1 - (m - eps ||w||_1)).

train.py calls `margins`, `worst_case_margins` and `hinge` in this order in each gradient step.
Every function is differentiable by TensorFlow, with subgradient 0 at the kinks of |w|.
docs/reference.md, "Adding a loss", says which places a new one changes.
"""

import tensorflow as tf


def margins(logits, y):
    """m = y f(x). logits (n, 1) or (n,), y (n,); returns (n,). Correct means m > 0."""
    return y * tf.reshape(logits, tf.shape(y))


def worst_case_margins(margins, x, y, w, eps, norm: str = "inf", box: bool = False):
    """The smallest margins within reach of an attack, shape (n,): m - eps ||w||_dual.

    With eps = 0, as for a regular model, they are the margins. With the box, where pixels stay in
    [0, 1], they depend on the images x (n, ...) and labels y (n,), which are not used otherwise.
    w: (d, 1) or (d,).
    """
    if box:
        return margins - fall_in_box(x, y, w, eps)
    return margins - eps * dual_norm(w, norm)


def hinge(margins):
    """max(0, 1 - m), averaged over the batch (article, "Regular Binary Classification").

    Called on worst-case margins this is the robust hinge, the inner maximum of the article's
    min-max problem ("Towards Robust Binary Classification"). In the L-infinity ball without the
    box its kink, as a function of m, is at 1 + eps ||w||_1, not at 1.
    """
    return tf.reduce_mean(tf.maximum(0.0, 1.0 - margins))


def logistic(margins):
    """log(1 + exp(-m)), averaged over the batch: the smooth twin of the hinge.

    Like the hinge it falls in the margin, so its worst case, too, is at the smallest margin.
    """
    return tf.reduce_mean(tf.nn.softplus(-margins))


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


def fall_in_box(x, y, w, eps):
    """How far each margin falls, (n,), in the L-infinity ball where pixels also stay in [0, 1].

    sum_j |w_j| min(eps, c_j), where the slack c_j to the box is x_j if y w_j > 0, else 1 - x_j.
    """
    x = tf.reshape(x, [tf.shape(x)[0], -1])
    w = tf.reshape(w, [-1])
    down, up = tf.minimum(eps, x), tf.minimum(eps, 1.0 - x)  # how far each pixel can move
    plus, minus = tf.nn.relu(w), tf.nn.relu(-w)
    fall_of_ones = tf.linalg.matvec(down, plus) + tf.linalg.matvec(up, minus)
    fall_of_zeros = tf.linalg.matvec(down, minus) + tf.linalg.matvec(up, plus)
    return tf.where(y > 0, fall_of_ones, fall_of_zeros)
