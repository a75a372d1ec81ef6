"""Numbers behind two claims of the article, from the stored runs alone.

    python claims.py

results/<dataset>/claims/ gets

    noise.csv      accuracy under random +-eps noise per pixel: drawn, with its standard error,
                   and by the normal approximation Phi(m / (eps ||w||_2)); and the worst case
    transfer.csv   accuracy of one model under the perturbation computed on another
    copies.csv     the same among regular models that differ only in their seed

Both need only weights and logits: a perturbation delta shifts the margin by y w.delta.
"""

from pathlib import Path

import numpy as np

import cli
import exact
import files
import plots
import runs
import stored
from cli import RESULTS, InputError
from records import COPIES, NOISE_RADII, NOISY, TRANSFER_RADII, TRANSFERRED

DRAWS = 50  # random noises per test sample
NEEDED = {*NOISY, *TRANSFERRED, *COPIES}


def main(results: Path = RESULTS) -> None:
    """Write the numbers for every data set under `results`, and draw the figures.

    Raises:
        InputError: no data set has the attacked runs that are needed, or a file is damaged.
    """
    tables = {
        dataset / "claims" / f"{name}.csv": columns
        for dataset in runs.list_datasets(results)
        for name, columns in compute(stored.load_models(dataset)).items()
    }
    if not tables:
        raise InputError(f"no data set in {results} has all of: {', '.join(sorted(NEEDED))}")
    for place, columns in tables.items():
        with files.whole_file(place) as path:
            files.write_csv(path, columns)
    for path in [*tables, *plots.draw(results, ["noise_or_attack", "transfer"])]:
        print(path)


def compute(models: dict[str, stored.Model]) -> dict[str, dict]:
    """The tables by name, or none where a run that they need is absent."""
    if not models.keys() >= NEEDED:
        return {}
    noisy, transferred, copies = (
        [models[name] for name in names] for names in (NOISY, TRANSFERRED, COPIES)
    )
    return {
        "noise": random_noise(noisy),
        "transfer": transfer(transferred),
        "copies": transfer(copies),
    }


def random_noise(models: list[stored.Model], seed: int = 0) -> dict:
    """Accuracy of each model when each pixel moves by +eps or -eps with equal chance.

    The noise changes the margin by eps y w.s, s in {-1, 1}^d, which has mean 0 and standard
    deviation eps ||w||_2 while the worst case takes eps ||w||_1: sqrt(d) times as much at most.
    """
    from scipy.special import ndtr

    columns = {name: [] for name in ("run", "eps", "random", "error", "normal", "worst")}
    rng = np.random.default_rng(seed)
    for model in models:
        w = model.run.w
        samples = model.attack.samples
        margins = samples["labels"] * samples["logits"]
        signs = rng.integers(0, 2, (DRAWS, len(margins), len(w)), dtype=np.int8)
        shifts = 2.0 * (signs @ w) - w.sum()  # w.s, per draw and sample
        for eps in NOISE_RADII:
            share = np.mean(margins + eps * shifts > 0, axis=0)
            spread = eps * exact.dual_norm(w, "2")
            columns["run"].append(model.run.name)
            columns["eps"].append(eps)
            columns["random"].append(share.mean())
            # of the noise alone: the test samples are the same in every draw
            columns["error"].append(np.sqrt((share * (1 - share)).sum() / DRAWS) / len(share))
            normal = ndtr(margins / spread) if spread else margins > 0
            columns["normal"].append(float(np.mean(normal)))
            columns["worst"].append(model.accuracy(eps))
    return columns


def transfer(models: list[stored.Model], radii=TRANSFER_RADII) -> dict:
    """Accuracy of each target under -y eps sign(w of the source): m - eps sign(w').w > 0."""
    columns = {name: [] for name in ("source", "target", "eps", "accuracy")}
    for eps in radii:
        for source in models:
            for target in models:
                samples = target.attack.samples
                margins = samples["labels"] * samples["logits"]
                cost = eps * np.sign(source.run.w) @ target.run.w
                columns["source"].append(source.run.name)
                columns["target"].append(target.run.name)
                columns["eps"].append(eps)
                columns["accuracy"].append(np.mean(margins > cost))
    return columns


def _parser() -> cli.Parser:
    parser = cli.Parser(
        prog="claims.py",
        description="Random noise against the worst case, and transfer, from the stored runs.",
    )
    parser.add_results()
    return parser


if __name__ == "__main__":
    cli.run(main, _parser())
