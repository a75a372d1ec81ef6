"""Attacks of three libraries that look for small perturbations, as the study referee runs them.

The Adversarial Robustness Toolbox, Foolbox and adv-lib; the last two need PyTorch. Images are rows
(n, d) with pixels in [0, 1], the model is W (K, d) and b (K,), and libraries compute in float32.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import importlib.util
import operator
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass

from lab import library

import numpy as np

NAMES = {"art": "ART", "foolbox": "Foolbox", "adv_lib": "adv-lib"}  # by the module
PACKAGES = {
    "art": "adversarial-robustness-toolbox",
    "foolbox": "foolbox",
    "adv_lib": "adv-lib",
}


@dataclass(frozen=True)
class Attack:
    """An attack of a library.

    Attributes:
        module: of the library; name: as its authors call it; norm: the one that it makes small.
        function: what it is called in the library; settings: those that are not its defaults.
        started: whether it is given a point to start from.
        classes: how many the model must have.
    """

    module: str
    name: str
    norm: str
    function: str
    settings: dict
    started: bool = False
    classes: int = 2


# Settings that are not named here have the defaults of the library. Changed are those that
# - an attack needs: `norm`, `minimal`, an upper bound of the radii and the step up to it, the
#   distance of ALMA with the length of its first step, and the proximal operator of PDPGD in L0;
# - keep an attack from the best: DeepFool and FAB stop some percent beyond the boundary
#   (`overshoot`, `η`), and DDN of adv-lib rounds pixels to 256 levels (`levels`);
# - are plainly bad here, of those tried on the two digits: in the L2 ball a first step of 1 in FMN,
#   the weight of L1 in the elastic net of Foolbox (`regularization`), and the first constant of the
#   elastic nets and of Carlini and Wagner's in ART, which few iterations do not reach;
# - set the time: each attack has about a minute for 100 images. Numbers of iterations are above
#   the default where this is 100 or so and takes a second, and below it where it takes minutes.
L_INF = float("inf")
NEAR_BOUNDARY = dict(overshoot=1e-4)
ATTACKS = (
    *(
        Attack(
            "art",
            "FGM, smallest ε",
            name,
            "FastGradientMethod",
            dict(norm=float(name), minimal=True, eps=largest, eps_step=largest / 5000),
        )
        for name, largest in (("inf", 0.5), ("2", 5.0), ("1", 50.0))
    ),
    Attack("art", "DeepFool", "2", "DeepFool", dict(verbose=False)),
    Attack(
        "art",
        "Carlini-Wagner",
        "2",
        "CarliniL2Method",
        dict(max_iter=50, initial_const=10.0, binary_search_steps=3, verbose=False),
    ),
    Attack(
        "art",
        "elastic net",
        "1",
        "ElasticNet",
        dict(decision_rule="L1", initial_const=10.0, binary_search_steps=1, verbose=False),
    ),
    *(
        Attack(
            "art",
            "HopSkipJump",
            name,
            "HopSkipJump",
            dict(norm=order, max_iter=5, verbose=False),
            True,
        )
        for name, order in (("inf", np.inf), ("2", 2))
    ),
    Attack("foolbox", "DeepFool", "inf", "LinfDeepFoolAttack", NEAR_BOUNDARY),
    Attack("foolbox", "DeepFool", "2", "L2DeepFoolAttack", NEAR_BOUNDARY),
    Attack("foolbox", "Carlini-Wagner", "2", "L2CarliniWagnerAttack", dict(steps=1000)),
    Attack("foolbox", "DDN", "2", "DDNAttack", dict(steps=1000)),
    Attack(
        "foolbox",
        "elastic net",
        "1",
        "EADAttack",
        dict(decision_rule="L1", steps=1000, regularization=0.1, initial_const=1.0),
    ),
    Attack("foolbox", "FMN", "inf", "LInfFMNAttack", dict(steps=1000)),
    Attack("foolbox", "FMN", "2", "L2FMNAttack", dict(steps=1000, max_stepsize=0.1)),
    Attack("foolbox", "FMN", "1", "L1FMNAttack", dict(steps=1000)),
    Attack("foolbox", "FMN", "0", "L0FMNAttack", dict(steps=1000)),
    *(
        Attack(
            "foolbox", "Brendel-Bethge", name, f"{ball}BrendelBethgeAttack", dict(steps=30), True
        )
        for name, ball in (("inf", "Linfinity"), ("2", "L2"), ("1", "L1"), ("0", "L0"))
    ),
    *(
        Attack(
            "foolbox",
            "HopSkipJump",
            name,
            "HopSkipJumpAttack",
            dict(steps=10, constraint=f"l{'inf' if name == 'inf' else 2}"),
            True,
        )
        for name in ("inf", "2")
    ),
    Attack("adv_lib", "DeepFool", "inf", "df", dict(norm=L_INF) | NEAR_BOUNDARY),
    Attack("adv_lib", "DeepFool", "2", "df", dict(norm=2) | NEAR_BOUNDARY),
    Attack("adv_lib", "SuperDeepFool", "2", "sdf", dict(search_iter=30) | NEAR_BOUNDARY),
    Attack("adv_lib", "Carlini-Wagner", "inf", "carlini_wagner_linf", dict(max_iterations=200)),
    Attack("adv_lib", "Carlini-Wagner", "2", "carlini_wagner_l2", dict(max_iterations=1000)),
    Attack("adv_lib", "DDN", "2", "ddn", dict(steps=1000, levels=None)),
    *(
        Attack(
            "adv_lib",
            "ALMA",
            name,
            "alma",
            dict(distance=f"l{name}", init_lr_distance=1.0),
            False,
            3,
        )
        for name in ("2", "1")
    ),
    *(
        Attack("adv_lib", "FMN", name, "fmn", dict(norm=order, steps=1000) | more)
        for name, order, more in (
            ("inf", L_INF, {}),
            ("2", 2, dict(α_init=0.1)),
            ("1", 1, {}),
            ("0", 0, {}),
        )
    ),
    *(
        Attack("adv_lib", "PDPGD", name, "pdpgd", dict(norm=order) | more)
        for name, order, more in (
            ("inf", L_INF, {}),
            ("2", 2, dict(num_steps=1000)),
            ("1", 1, dict(num_steps=1000)),
            ("0", 0, dict(proximal_operator=23)),  # as its authors advise
        )
    ),
    Attack("adv_lib", "PDGD", "2", "pdgd", dict(num_steps=1000)),
    *(
        Attack("adv_lib", "FAB", name, "fab", dict(norm=order, η=1.001))
        for name, order in (("inf", L_INF), ("2", 2), ("1", 1))
    ),
    *(
        Attack("adv_lib", "trust region", name, "tr", dict(p=order, iter=5000))
        for name, order in (("inf", L_INF), ("2", 2))
    ),
    *(
        Attack(
            "adv_lib",
            f"APGD on {'cross-entropy' if loss == 'ce' else 'DLR'}",
            name,
            "auto_pgd.minimal_apgd",
            dict(norm=order, max_eps=largest, n_iter=50, loss_function=loss),
            False,
            2 if loss == "ce" else 3,
        )
        for name, order, largest in (("inf", L_INF, 0.5), ("2", 2, 5.0), ("1", 1, 50.0))
        for loss in ("ce", "dlr")
    ),
    Attack("adv_lib", "sigma-zero", "0", "sigma_zero", {}),
    Attack("adv_lib", "VFGA", "0", "vfga", dict(targeted=False)),
)


@dataclass(frozen=True)
class Problem:
    """Images x (n, d) and labels y (n,) from 0 to K - 1, and the model W (K, d), b (K,)."""

    W: np.ndarray
    b: np.ndarray
    x: np.ndarray
    y: np.ndarray

    @functools.cached_property
    def keras(self):
        """The model as the Adversarial Robustness Toolbox wants it."""
        return library.linear(self.W, self.b)

    @functools.cached_property
    def torch(self) -> tuple:
        """The model as a module of PyTorch, the images and the labels as tensors."""
        import torch

        torch.set_num_threads(1)  # two wait for each other; and sums do not depend on the machine
        model = torch.nn.Linear(*self.W.shape[::-1])
        with torch.no_grad():
            model.weight.copy_(torch.tensor(self.W))
            model.bias.copy_(torch.tensor(self.b))
        return model.eval(), torch.tensor(np.float32(self.x)), torch.tensor(self.y)

    @functools.cached_property
    def starts(self) -> np.ndarray:
        """For each image the nearest one in L2 that the model takes for another digit (n, d)."""
        taken = (self.x @ self.W.T + self.b).argmax(axis=1)
        distances = np.square(self.x[:, None] - self.x).sum(axis=2)
        distances[taken == self.y[:, None]] = np.inf
        return self.x[distances.argmin(axis=1)]


def prepare(problem: Problem, module: str) -> None:
    """Import the library and make its model, which takes seconds and is no part of an attack."""
    attacks = dict(art="art.attacks.evasion", adv_lib="adv_lib.attacks")
    importlib.import_module(attacks.get(module, module))
    for name in ("keras" if module == "art" else "torch", "starts"):
        getattr(problem, name)  # which keeps it


def of_art(problem: Problem, attack: Attack) -> np.ndarray:
    from art.attacks import evasion

    made = getattr(evasion, attack.function)(
        problem.keras, batch_size=len(problem.x), **attack.settings
    )
    given = dict(x_adv_init=np.float32(problem.starts)) if attack.started else {}
    return made.generate(np.float32(problem.x), np.eye(len(problem.b))[problem.y], **given)


def of_foolbox(problem: Problem, attack: Attack) -> np.ndarray:
    import foolbox
    import torch

    module, images, labels = problem.torch
    model = foolbox.PyTorchModel(module, bounds=(0, 1), device="cpu")
    given = dict(starting_points=torch.tensor(np.float32(problem.starts)))
    made = getattr(foolbox.attacks, attack.function)(**attack.settings)
    found, _, _ = made(model, images, labels, epsilons=None, **given if attack.started else {})
    return found.numpy()


def of_adv_lib(problem: Problem, attack: Attack) -> np.ndarray:
    from adv_lib import attacks

    module, images, labels = problem.torch
    find = operator.attrgetter(attack.function)(attacks)
    return find(module, images, labels, **attack.settings).detach().numpy()


BY_MODULE: dict[str, Callable[[Problem, Attack], np.ndarray]]
BY_MODULE = {"art": of_art, "foolbox": of_foolbox, "adv_lib": of_adv_lib}


def installed() -> list[str]:
    """The modules of those libraries that are installed."""
    return [module for module in BY_MODULE if importlib.util.find_spec(module)]


def version(module: str) -> str:
    return importlib.metadata.version(PACKAGES[module])


def points(problem: Problem, attack: Attack, seed: int = 0) -> np.ndarray:
    """What the attack finds for each image (n, d), float32; on one machine always the same."""
    np.random.seed(seed)  # noqa: NPY002  libraries draw from the global generators
    if attack.module != "art":
        import torch

        torch.manual_seed(seed)
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        return BY_MODULE[attack.module](problem, attack)
