"""The linear layer: its logits, and how its weights start."""

import numpy as np
import pytest

import model


@pytest.mark.parametrize("shape", [(7, 7, 1), (28, 28, 1)])
def test_one_logit_per_image(shape):
    """w.x + b in NumPy; float32 sums of 784 products of size below 1 agree to 1e-5."""
    classifier = model.linear(shape)
    kernel, bias = classifier.trainable_variables
    assert (kernel.shape, bias.shape) == ((np.prod(shape), 1), (1,))
    bias.assign([0.25])
    x = np.random.default_rng(0).random((5, *shape), np.float32)
    logits = x.reshape(5, -1) @ kernel.numpy() + 0.25
    assert logits.shape == (5, 1)
    np.testing.assert_allclose(classifier(x), logits, atol=1e-5)


@pytest.mark.parametrize(("init", "limit"), [("glorot", np.sqrt(6 / 785)), ("pytorch", 1 / 28)])
def test_initial_weights_are_uniform_up_to_the_limit(init, limit):
    """sqrt(6 / (d + 1)) as the article has it, 1 / sqrt(d) as torch.nn.Linear draws.

    Of 784 draws the largest misses a hundredth of the limit with probability 0.99^784 < 4e-4,
    and the seed is fixed. The standard deviation is limit / sqrt(3), and its own relative error
    0.45 / sqrt(784) = 1.6 %.
    """
    kernel, bias = model.linear((28, 28, 1), init).get_weights()
    assert 0.99 * limit < np.abs(kernel).max() <= limit * (1 + 1e-6)  # float32
    assert kernel.std() == pytest.approx(limit / np.sqrt(3), rel=0.05)
    assert abs(kernel.mean()) < 0.1 * limit  # five standard errors
    assert bias == 0


@pytest.mark.parametrize("init", ["glorot", "pytorch"])
def test_seed_decides_the_initial_weights(init):
    one, same, other = (model.linear((7, 7, 1), init, s).get_weights()[0] for s in (3, 3, 4))
    assert (one == same).all()
    assert (one != other).any()


def test_zeros():
    assert all((weights == 0).all() for weights in model.linear((7, 7, 1), "zeros").get_weights())
