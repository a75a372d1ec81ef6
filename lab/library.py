"""The Adversarial Robustness Toolbox, as benchmark.py and the study of ten digits compare with it.

Neither needs it for anything else; the tests' requirements bring it along.
"""

from __future__ import annotations

import importlib.util
import warnings


def installed() -> bool:
    return importlib.util.find_spec("art") is not None


def estimator(model, loss, box: bool):
    """A Keras model of logits and the loss that attacks climb, as the toolbox wants them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it misses PyTorch
        from art.estimators.classification import TensorFlowV2Classifier
    return TensorFlowV2Classifier(
        model=model,
        nb_classes=model.output_shape[1],
        input_shape=model.input_shape[1:],
        loss_object=loss,
        clip_values=(0.0, 1.0) if box else None,
    )


def attack(estimator, eps: float, steps: int, norm: str = "inf"):
    """FGSM (one step along the gradient) or PGD of the toolbox, in the ball called `norm`."""
    from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescent

    known = dict(norm=float(norm), eps=float(eps), batch_size=4096)  # float("inf") is np.inf
    if steps == 1:
        return FastGradientMethod(estimator, **known)
    size = 2.5 * float(eps) / steps
    return ProjectedGradientDescent(
        estimator, eps_step=size, max_iter=steps, verbose=False, **known
    )
