"""explore.html in a real browser, against advlinear; and explore.py's choice of what it shows."""

import base64
import contextlib
import dataclasses
import html
import json
import re
import shutil
import subprocess
import tempfile

from lab import store
from lab.cli import RESULTS, InputError

import numpy as np
import pytest
import scipy.sparse
import scipy.stats
from conftest import script

import advlinear
import attack
import explore
import optimum
import recipes
import runs
import worst_case
from figures import style

MODELS = ["regular", "robust-eps0.1", "robust-eps0.2", "robust-eps0.3"]
# Before the page's own script: what goes wrong, and each state that a test notes.
LISTEN = """<script>
const wrong = [], notes = [];
for (const kind of ["error", "unhandledrejection", "securitypolicyviolation"])
  addEventListener(kind, (event) => wrong.push(`${kind} ${event.message || event.blockedURI}`));
for (const kind of ["error", "warn"]) console[kind] = (...words) => wrong.push(words.join(" "));
function said(row, part) { return row.querySelector(part)?.textContent }
function note(more = {}) {
  const rows = [...document.querySelectorAll("[data-run]")];
  notes.push({ ...document.body.dataset, ...more, rows: rows.map((row) =>
    ({ ...row.dataset, says: said(row, ".verdict"), sum: said(row, ".sum"),
       button: said(row, "button"), title: said(row, "h3"), half: said(row, ".half"),
       note: said(row, ".note") })),
    shares: [...document.querySelectorAll("#shares b")].map((share) => share.textContent) });
}
function reds(canvas) {  // of each pixel
  const { data } = canvas.getContext("2d").getImageData(0, 0, 28, 28);
  return Array.from({ length: 784 }, (_, j) => data[4 * j]);
}
function give(target, kind, properties) {
  if (typeof target === "string") target = document.querySelector(target);
  Object.assign(target, properties);
  target.dispatchEvent(new Event(kind, { bubbles: true }));
}
function pointer(target, kind, x, y, pointerId = 1) {
  const { left, top } = target.getBoundingClientRect();
  target.dispatchEvent(new PointerEvent(kind,
    { clientX: left + x, clientY: top + y, pointerId, bubbles: true }));
}
</script>"""
REPORT = """<script>
setTimeout(() => {
  const requests = performance.getEntriesByType("resource").map((entry) => entry.name);
  parent.postMessage({ name: window.name, wrong, requests, notes }, "*");
}, 3000);
</script>"""
STAGE = """<!doctype html><meta charset="utf-8"><body><pre id="report"></pre><script>
const found = [];
addEventListener("message", ({ data }) => {
  found.push(data);
  document.getElementById("report").textContent = JSON.stringify(found);
});
</script>"""
EVERY_STATE = """
const radios = document.querySelectorAll("#digits input");
for (const box of [false, true]) {
  give("#box", "change", { checked: box });
  radios.forEach((radio, k) => {
    radio.click();
    for (const eps of [0, 0.1, 0.35, 0.5]) {
      give("#eps", "input", { value: eps });
      note({ digit: k });
    }
  });
}
"""


# Just below the margin of the training set (.0367) the best weights are hundreds of times as large.
SOME_STEPS = """
for (const box of [false, true]) {
  give("#box", "change", { checked: box });
  for (const digit of [0, 5, 12, 23]) {
    document.querySelectorAll("#digits input")[digit].click();
    for (let step = 0; step <= 500; step += 12) {
      give("#eps", "input", { value: step / 1000 });
      note();
    }
    give("#eps", "input", { value: 0.037 });
    note();
  }
}
"""


@pytest.fixture(scope="module")
def results(sample, tmp_path_factory):
    """The best models of the sample, and four linear models that are not trained but made by hand.

    The mean zero and the mean one are told apart; the larger the radius, the fewer pixels count.
    """
    results = tmp_path_factory.mktemp("explore")
    x, y = sample.flat("train")
    difference = x[y > 0].mean(0) - x[y < 0].mean(0)
    noise = np.random.default_rng(0).normal(0, 0.05, len(difference))
    history = {"train_accuracy": [0.5], "test_accuracy": [0.5]}
    for eps in (None, 0.1, 0.2, 0.3):
        w = (
            noise + difference
            if eps is None
            else np.sign(difference) * np.maximum(np.abs(difference) - eps, 0)
        )
        b = -np.median(x @ w) if eps != 0.1 else np.abs(w).sum()  # a one, whatever the pixels
        settings = recipes.settings(sample.name, eps is not None, eps)
        weights = np.float32(w), np.float32(b)
        facts = runs.facts_of(sample, {})
        run = runs.load_run(runs.save_run(results, settings, facts, *weights, history))
        for box in (False, True):
            found = attack.attack(run, sample, "inf", box)
            runs.save_attack(results / sample.name, run.name, found)
    optimum.follow_path(sample, results, quiet=True)
    return results


@pytest.fixture(scope="module")
def written(results, sample):
    explore.main(results=results)
    return results / sample.name / "explore.html"


NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


@dataclasses.dataclass
class Scene:
    """What is done with a page: `steps` in JavaScript, at an address, in a window of a width, by
    day or (scheme "dark") by night."""

    page: str
    steps: str
    address: str = ""
    width: int = 1280
    scheme: str = "light"


def play(scenes: dict[str, Scene], folder) -> dict[str, list[dict]]:
    """What `note` took down in each scene; nothing may go wrong.

    Each scene is a frame with its own copy of its page, all in one session of Chromium.
    """
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if not program:
        pytest.skip(f"no browser: install one of {', '.join(NAMES)}")
    stage = STAGE
    for name, scene in scenes.items():
        page = scene.page.replace("<title>", LISTEN + "<title>")
        page = page.replace("</body>", f"<script>{{{scene.steps}}}</script>{REPORT}</body>")
        (folder / f"{name}.html").write_text(page, "utf-8")
        look = f'width="{scene.width}" height="900" style="border: 0; color-scheme: {scene.scheme}"'
        stage += f'<iframe name="{name}" src="{name}.html{scene.address}" {look}></iframe>'
    (folder / "stage.html").write_text(stage, "utf-8")
    # Root, as in CI, cannot have a sandbox; and Chromium may still write to its profile.
    flags = "--headless --no-sandbox --disable-gpu --disable-background-networking --no-first-run"
    options = "--hide-scrollbars --dump-dom --virtual-time-budget=5000 --window-size=1600,900"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [program, *flags.split(), *options.split(), f"--user-data-dir={profile}"]
        address = (folder / "stage.html").as_uri()
        done = subprocess.run([*command, address], capture_output=True, text=True, timeout=300)
    reports = json.loads(html.unescape(re.search(r'<pre id="report">(.*?)</pre>', done.stdout)[1]))
    assert {report["name"] for report in reports} == scenes.keys()
    for report in reports:
        assert (report["wrong"], report["requests"]) == ([], []), report["name"]
    return {report["name"]: report["notes"] for report in reports}


SCENES = {}  # name -> what is done with the page that `written` has made; each has one test


@pytest.fixture(scope="module")
def played(results, written, sample, tmp_path_factory):
    """The notes of every scene, from one session of the browser."""
    page = written.read_text("utf-8")
    scenes = {}
    for name, scene in SCENES.items():
        scene = dict(steps=scene) if isinstance(scene, str) else dict(scene)
        right, wrong = scene.pop("change", ("", ""))
        assert not right or page.count(right) == 1
        scenes[name] = Scene(page.replace(right, wrong) if right else page, **scene)
    shorter = shutil.copytree(results, tmp_path_factory.mktemp("shorter") / "results")
    (shorter / sample.name / "studies" / "path.npz").unlink()
    explore.main(results=shorter)
    without = (shorter / sample.name / "explore.html").read_text("utf-8")
    scenes["without a path"] = Scene(without, NO_PATH)
    return play(scenes, tmp_path_factory.mktemp("stage"))


def said(number: float, digits: int) -> str:
    """As the page writes it: a true minus sign, and none before 0.00."""
    return f"{number:z.{digits}f}".replace("-", "−")


class BestModels:
    """The best model for each step of the slider, by advlinear, from the stored study."""

    run = "best"

    def __init__(self, dataset, split):
        tables = runs.load_study(store.file(dataset, "studies", "path"), {})
        table, self.grid = tables["path-models"], tables["path"]
        self.x, self.y = split.flat("test")
        columns = {
            name: table[name] for name in ("b", "s", "p", "radii", "proved", "dual", "reach")
        }
        parts = np.float64(table["w_data"]), table["w_indices"].astype(int), table["w_indptr"]
        w = scipy.sparse.csr_array(parts, shape=(len(table["b"]), self.x.shape[1]))
        some = dict(eps_min=0.0, eps_max=0.5, norm="inf", classes=np.array([-1, 1]))
        self.path = advlinear.Path(**some, n=len(split.y_train), w=w, **columns)

    def at(self, step: int) -> advlinear.Best:
        return self.path.at(step / 1000)

    def radii(self, step: int, box: bool, rows=slice(None)) -> np.ndarray:
        best = self.at(step)
        return worst_case.signed_radii(self.x[rows], self.y[rows], best.w, best.b, "inf", box)

    def accuracy(self, step: int, box: bool) -> float:
        return np.mean(self.radii(step, box) > step / 1000)

    def first_wrong(self, i: int, box: bool) -> int | None:
        """The first step at which the best model is wrong on this image, if there is one."""
        steps = (k for k in range(501) if self.radii(k, box, [i])[0] <= k / 1000)
        return next(steps, None)


def compare(notes: list[dict], members: list[runs.Run], best: BestModels, split) -> None:
    """Margins, radii, verdicts, sums, buttons and accuracies of each state, against advlinear."""
    x, y = split.flat("test")
    found, first, shares = {}, {}, {}
    for box in {state["box"] == "true" for state in notes}:
        found[box] = [worst_case.signed_radii(x, y, run.w, run.b, "inf", box) for run in members]
    for state in notes:
        i, eps, box = int(state["index"]), float(state["eps"]), state["box"] == "true"
        step = round(1000 * eps)
        assert state["label"] == f"{y[i]:.0f}"
        assert [row["run"] for row in state["rows"]] == [*(run.name for run in members), "best"]
        for row, model in zip(state["rows"], [*members, best.at(step)], strict=True):
            image = x[i : i + 1], y[i : i + 1], model.w, model.b
            (margin,) = worst_case.margins(*image, eps, "inf", box)
            (radius,) = worst_case.signed_radii(*image, "inf", box)
            size = np.abs(model.w).sum()
            assert float(row["margin"]) == pytest.approx(margin, rel=0, abs=1e-13 * max(10, size))
            assert float(row["radius"]) == pytest.approx(radius, rel=1e-12, abs=1e-13)
            assert row["correct"] == ("true" if radius > eps else "false")
            own, other = split.digits if y[i] < 0 else split.digits[::-1]
            wrong = f"✗ says {other}, not {own}" if size or model.b else "✗ says neither"
            assert row["says"] == (f"✓ says {own}" if radius > eps else wrong)
            (clean,) = y[i] * (x[i : i + 1] @ model.w + model.b)
            lost = said(clean - margin, 2) if box else f"{eps:.3f} × {said(size, 2)}"
            assert row["sum"] == f"{said(clean, 2)} − {lost} = {said(margin, 2)}"
            if row["run"] == "best":
                if (i, box) not in first:
                    first[i, box] = best.first_wrong(i, box)
                goal = first[i, box]
                wanted = "never wrong" if goal is None else f"first wrong at {goal / 1000:.3f}"
                assert row["button"] == (wanted if goal != 0 else "wrong at ε = 0")
                count = int(np.count_nonzero(model.w))
                pixels = f"{count} pixel{'s' * (count != 1)} in use"
                assert row["half"] == f"{pixels}, ‖w‖₁ = {said(size, 1)}"
                what = "best without the box, for" if box else "best possible for"
                assert row["title"] == f"{what} ε\u00a0=\u00a0{step / 1000:.3f}"
            else:
                never = "never flips" if radius == np.inf else f"flips at {said(radius, 4)}"
                assert row["button"] == ("wrong at ε = 0" if radius <= 0 else never)
        if (step, box) not in shares:
            shares[step, box] = f"{100 * best.accuracy(step, box):.2f} %"
        trained = [f"{100 * np.mean(radii > eps):.2f} %" for radii in found[box]]
        assert state["shares"] == [*trained, shares[step, box]]


def members_of(results, dataset) -> list[runs.Run]:
    found = runs.read_runs(results / dataset)
    return [found[name] for name in MODELS]


# --- in the browser ------------------------------------------------------------------------------


SCENES["every state"] = EVERY_STATE


def test_every_image_at_several_radii_with_and_without_box(results, sample, played):
    notes = played["every state"]
    assert len(notes) == 2 * 24 * 4
    best = BestModels(results / sample.name, sample)
    compare(notes, members_of(results, sample.name), best, sample)
    assert {row["correct"] for state in notes for row in state["rows"]} == {"true", "false"}
    assert any(row["radius"] == "Infinity" for state in notes for row in state["rows"])


WRONG = {
    "radius": ("if (!box) return eps", "if (!box) return 1.001 * eps"),
    "in the box": ("if (short <= 1e-14 * left) return eps", "if (short <= 1e-3 * left) return eps"),
    "best": ("found.length / 1000 * s[k]", "found.length / 1001 * s[k]"),
}
SCENES |= {name: dict(steps=EVERY_STATE, change=change) for name, change in WRONG.items()}


@pytest.mark.parametrize("name", WRONG)
def test_a_number_that_is_wrong_by_a_thousandth_is_found(results, sample, played, name):
    best = BestModels(results / sample.name, sample)
    with pytest.raises(AssertionError):
        compare(played[name], members_of(results, sample.name), best, sample)


@pytest.mark.mnist
def test_every_state_of_the_published_page(mnist, tmp_path):
    page = (RESULTS / mnist.name / "explore.html").read_text("utf-8")
    members, best = members_of(RESULTS, mnist.name), BestModels(RESULTS / mnist.name, mnist)
    scenes = dict(every=Scene(page, EVERY_STATE), some=Scene(page, SOME_STEPS))
    every, notes = play(scenes, tmp_path).values()
    compare(every, members, best, mnist)
    compare(notes, members, best, mnist)
    buttons = {state["rows"][-1]["button"] for state in notes}
    assert "never wrong" in buttons  # w = 0 calls all a one


SCENES["button"] = """
for (const box of [false, true]) {
  give("#box", "change", { checked: box });
  document.querySelectorAll("#digits input").forEach((radio) => {
    radio.click();
    document.querySelectorAll("[data-run] button").forEach((button, k) => {
      give("#eps", "input", { value: 0.5 });
      if (button.disabled) { note({ k, disabled: true }); return }
      button.click();
      note({ k });
      const step = Math.round(1000 * document.body.dataset.eps);
      if (step === 0) return;
      give("#eps", "input", { value: (step - 1) / 1000 });
      note({ k, before: true });
    });
  });
}
"""


def test_the_button_goes_to_the_first_step_that_flips(written, played):
    notes = played["button"]
    for state in notes:
        row = state["rows"][state["k"]]
        if state.get("disabled"):
            assert float(row["radius"]) > 0.5
            assert row["run"] != "best"  # wrong on all of the sample where w = 0 is best
        else:
            assert (row["correct"] == "true") == ("before" in state)
            assert float(state["eps"]) * 1000 == pytest.approx(round(float(state["eps"]) * 1000))
    kinds = [(state.get("disabled"), state.get("before")) for state in notes]
    assert {(True, None), (None, None), (None, True)} <= set(kinds)


SLIDER = 'note({ slider: document.querySelector("#eps").value })'
ADDRESSES = ("#digit=5&eps=0.0932123&box", "#digit=23&eps=0.1", "#digit=99&eps=-1", "")
SCENES |= {f"address{k}": dict(steps=SLIDER, address=a) for k, a in enumerate(ADDRESSES)}


def test_the_address_restores_a_state(written, played):
    chosen = explore.hard_to_easy(runs.read(written.parent).choose(MODELS))
    state, other, bad, usual = (played[f"address{k}"][0] for k in range(4))
    assert (state["index"], state["eps"], state["box"]) == (str(chosen[5]), "0.0932123", "true")
    assert state["slider"] == "0.093"
    assert state["rows"][-1]["title"].endswith("0.093")  # the best model for the nearest step
    assert (other["index"], other["eps"], other["box"]) == (str(chosen[23]), "0.1", "false")
    assert bad == usual


SCENES["follows"] = """
document.querySelectorAll("#digits input")[7].click();
give("#eps", "input", { value: 0.25 });
give("#box", "change", { checked: true });
setTimeout(() => {
  note({ hash: location.hash, status: document.getElementById("status").textContent });
  addEventListener("hashchange", () => setTimeout(() => note({ hash: location.hash })));
  location.hash = "#digit=3&eps=0.0605";
}, 500);
"""


def test_the_address_follows_the_state_and_the_state_the_address(written, played):
    changed, restored = played["follows"]
    assert changed["hash"] == "#digit=7&eps=0.25&box"
    titles = "regular", *(f"robust ε = {name[-3:]}" for name in MODELS[1:])
    titles += ("best without the box, for ε\u00a0=\u00a00.250",)
    for row, label in zip(changed["rows"], titles, strict=True):
        assert f"{label} {row['says']}" in changed["status"]
    chosen = explore.hard_to_easy(runs.read(written.parent).choose(MODELS))
    assert (restored["index"], restored["eps"]) == (str(chosen[3]), "0.0605")
    assert restored["box"] == "false"


SCENES["dragged"] = """
for (const id of ["margins", "accuracy"]) {
  const chart = document.getElementById(id), wide = chart.clientWidth;
  pointer(chart, "pointermove", 100, 50);
  note();
  pointer(chart, "pointerdown", 46 + (wide - 56) * 0.4, 50);
  note();
  pointer(chart, "pointermove", wide + 99, 50);
  pointer(chart, "pointerup", wide + 99, 50);
  pointer(chart, "pointermove", 100, 50);
  note();
  give("#eps", "input", { value: 0.12 });
  pointer(chart, "pointerdown", 100, 50);
  pointer(chart, "pointercancel", 100, 50);
}
"""


def test_both_charts_can_be_dragged(written, played):
    """Out of the chart, too; a finger that scrolls the page leaves the radius as it was."""
    notes = played["dragged"]
    assert [state["eps"] for state in notes] == ["0.12", "0.2", "0.5"] * 2


CHARTS = """
for (const box of [false, true]) {
  give("#box", "change", { checked: box });
  for (const digit of [0, 8, 12, 20]) {
    document.querySelectorAll("#digits input")[digit].click();
    note({ charts: ["margins", "accuracy"].map((id) => {
      const chart = document.getElementById(id), texts = [...chart.querySelectorAll("text")];
      const ticks = (kind) => texts.filter((tick) => tick.getAttribute("text-anchor") === kind)
        .map((tick) => [tick.textContent, tick.getAttribute(kind === "end" ? "y" : "x")]);
      return { up: ticks("end"), across: ticks("middle"), tall: chart.clientHeight,
        words: texts.map((text) => text.textContent),
        lines: [...chart.querySelectorAll("polyline")].map((line) =>
          [line.getAttribute("points"), line.getAttribute("stroke")]) };
    }) });
  }
}"""


def ticks_of(ticks, offset=0.0) -> list[tuple[float, float]]:
    """Places on the screen, and the numbers that stand there."""
    known = []
    for text, place in ticks:
        text = text.removesuffix(" %").replace("−", "-")
        with contextlib.suppress(ValueError):  # the words beside the axis
            known.append((float(place) - offset, float(text)))
    return known


def line_through(known: list[tuple[float, float]]):
    """Where a number stands, if two others do: the straight line through the first and the last."""
    (one, first), (other, second) = known[0], known[-1]
    return lambda number: one + (np.asarray(number) - first) * (other - one) / (second - first)


def places(chart) -> np.ndarray:
    """(lines, 501, 2) on the screen."""
    return np.array([[p.split(",") for p in line.split()] for line, _ in chart["lines"]], float)


SCENES["charts"] = CHARTS


def test_charts_show_margins_and_accuracy_over_the_radius(results, sample, played):
    """Each line whole. Of the margins beyond what the words on the chart say, the logarithms."""
    x, y = sample.flat("test")
    best, steps = BestModels(results / sample.name, sample), np.arange(0, 501, 20)
    members = [*members_of(results, sample.name), best]
    models = [[best.at(k) if run is best else run for k in steps] for run in members]
    radii = {}
    for box in (False, True):
        threat = "inf", box
        radii[box] = [
            [worst_case.signed_radii(x, y, one.w, one.b, *threat) for one in every[::10]]
            for every in models
        ]
    beyond = dict(above=0, below=0)
    for state in played["charts"]:
        i, box = int(state["index"]), state["box"] == "true"
        image = x[i : i + 1], y[i : i + 1]
        margins, accuracy = state["charts"]
        for chart in state["charts"]:
            colours = [style.colour(run.settings) for run in members[:-1]] + [style.BLUE]
            assert [colour for _, colour in chart["lines"]] == colours
            shown = places(chart)
            assert shown.shape == (5, 501, 2)
            across = line_through(ticks_of(chart["across"]))
            np.testing.assert_allclose(shown[0, :, 0], across(np.arange(501) / 1000), atol=0.1)
            assert shown[..., 1].min() >= 8 - 0.1  # and nothing is cut
            assert shown[..., 1].max() <= chart["tall"] - 34 + 0.1
        up = line_through(ticks_of(accuracy["up"], 4))
        wanted = [
            [100 * np.mean(one > k / 1000) for one, k in zip(every, steps[::10], strict=True)]
            for every in radii[box]
        ]
        np.testing.assert_allclose(places(accuracy)[:, steps[::10], 1], up(wanted), atol=0.1)
        left = [
            [
                worst_case.margins(*image, one.w, one.b, k / 1000, "inf", box)[0]
                for one, k in zip(every, steps, strict=True)
            ]
            for every in models
        ]
        left, shown = np.array(left), places(margins)[:, steps, 1]
        ticks = ticks_of(margins["up"], 4)
        (words,) = (words for words in margins["words"] if "log scale" in words)
        high, low = (int(n) for n in re.findall(r"[-\d]+", words.replace("−", "-")))
        up = line_through([tick for tick in ticks if low <= tick[1] <= high])
        even = (low <= left) & (left <= high)
        np.testing.assert_allclose(shown[even], up(left[even]), atol=0.1)
        for side, far, edge in (("above", left > high, high), ("below", left < low, low)):
            there = [(up(edge), 0.0)]
            there += [(p, np.log(v / edge)) for p, v in ticks if v / edge > 1]
            there += zip(shown[far], np.log(left[far] / edge), strict=True)
            there.sort(key=lambda known: known[1])
            if far.any():
                place, size = np.array(there).T
                np.testing.assert_allclose(place, line_through(there)(size), atol=0.2)
                beyond[side] += len(there) > 2
    assert min(beyond.values()) > 0


SCENES["said of the lines"] = """
for (const box of [false, true]) {
  give("#box", "change", { checked: box });
  const words = (list) => [...list].map((one) => one.textContent);
  note({ words: words(document.querySelectorAll("svg text, #rows h3, #shares li")) });
}
"""


def test_the_words_say_once_that_the_best_is_another_model_at_each_radius(played):
    """And which problem it is the best of, beside each of its numbers where the box is ticked."""
    for state in played["said of the lines"]:
        assert state["words"].count("best: another model at each ε") == 1
        of_best = [words for words in state["words"] if words.startswith("best ")]
        start = "best without the box" if state["box"] == "true" else "best possible for "
        assert len(of_best) == 2
        assert all(words.startswith(start) for words in of_best)


SCENES["pictures"] = """
for (const box of [false, true]) {
  give("#box", "change", { checked: box });
  document.querySelectorAll("#digits input")[15].click();
  note({ pictures: [...document.querySelectorAll("[data-run]")].map((row) =>
    [...row.querySelectorAll("canvas")].map(reds)) });
}
"""


def signed_reds(values, largest, least=0.0):
    share = np.abs(values) / (largest or 1)
    shade = (share > least) * (0.15 + 0.85 * np.sqrt(share))
    return 255 + shade * (np.where(values > 0, 64, 168) - 255)


def test_pictures_show_weights_image_push_and_attacked_image(results, written, sample, played):
    """The red of each pixel, to a shade: 255 at 0, and 64 (blue) or 168 (orange) at the largest.

    Weights are white up to a hundredth of the largest.
    """
    best = BestModels(results / sample.name, sample)
    for state in played["pictures"]:
        i, eps, box = int(state["index"]), float(state["eps"]), state["box"] == "true"
        x, y = (part[i : i + 1] for part in sample.flat("test"))
        models = [*members_of(results, sample.name), best.at(round(1000 * eps))]
        for run, found in zip(models, state["pictures"], strict=True):
            delta = worst_case.perturbation(x, y, run.w, eps, "inf", box)
            over = 0 if box else eps
            grey = [-over, 1 + over], [255, 0]
            size = np.abs(run.w).max()
            expected = (
                signed_reds(run.w, size, 0.01),
                np.interp(x[0], *grey),
                signed_reds(delta[0], 0.5),
                np.interp((x + delta)[0], *grey),
            )
            np.testing.assert_allclose(found, expected, atol=1)


SCENES["keys"] = """
const press = (key, times = 1) => {
  for (let k = 0; k < times; k++)
    document.getElementById("pad").dispatchEvent(new KeyboardEvent("keydown", { key }));
};
document.querySelectorAll("#draws button")[1].click();
give("#eps", "input", { value: 0 });
press("ArrowLeft", 2);
note();
press(" ");
press("ArrowDown", 12);
note({ ink: reds(document.querySelector("[data-run] canvas.image")).map((v) => 255 - v) });
press(" ");
press("ArrowRight", 5);
note();
"""


def test_a_digit_is_drawn_by_keys_alone(written, played):
    lifted, drawn, moved = played["keys"]
    assert (lifted["label"], drawn["label"]) == ("", "1")
    rows, columns = (
        np.ptp(np.flatnonzero(np.reshape(drawn["ink"], (28, 28)).max(axis=axis))) + 1
        for axis in (1, 0)
    )
    assert rows >= 20  # an upright bar
    assert 3 <= columns <= 6
    assert moved["rows"] == drawn["rows"]


SCENES["words"] = """
const say = (id) => document.getElementById(id).textContent;
const state = () => ({
  said: ["shown", "sum", "margins-title", "accuracy-title", "legend", "choice"].map(say),
  value: document.getElementById("eps").getAttribute("aria-valuetext"),
  checked: [...document.querySelectorAll("#digits input")].map((radio) => radio.checked),
  pressed: [...document.querySelectorAll("#draws button")].map((b) => b.ariaPressed),
  labels: [...document.querySelectorAll("#digits input")].map((radio) => radio.ariaLabel),
  fooled: [...document.querySelectorAll("[data-run]")].map((row) => row.matches(".fooled")),
  marks: ["margins", "accuracy"].map((id) => {
    const chart = document.getElementById(id);
    const ends = [...chart.querySelectorAll("polyline")].map((line) =>
      line.getAttribute("points").split(" ")[250]);
    return [ends, [...chart.querySelectorAll("circle")].map((mark) =>
      `${(+mark.getAttribute("cx")).toFixed(1)},${(+mark.getAttribute("cy")).toFixed(1)}`)];
  }) });
give("#eps", "input", { value: 0.25 });
document.querySelectorAll("#digits input")[20].click();
note(state());
give("#box", "change", { checked: true });
document.querySelectorAll("#draws button")[0].click();
note(state());
"""


def test_words_marks_and_labels_follow_the_state(results, written, played):
    chosen, empty = played["words"]
    assert chosen["said"] == [
        "0.250",
        "margin − ε × ‖w‖₁ = margin left",
        f"Margin left of this 1 (test image {chosen['index']})",
        "Accuracy on all 200 test images at ε = 0.250",
        "blue where ink counts for 1, orange where it counts for 0.",
        "Choose a test image: 0s from hard to easy, then 1s from hard to easy",
    ]
    assert empty["said"][1:3] == ["margin − what the push takes = margin left", "Margin left"]
    assert chosen["value"] == "0.250"
    assert (np.flatnonzero(chosen["checked"]), chosen["pressed"]) == ([20], ["false", "false"])
    assert (sum(empty["checked"]), empty["pressed"]) == (0, ["true", "false"])
    indexes = explore.hard_to_easy(runs.read(written.parent).choose(MODELS))
    assert chosen["labels"] == [f"a {int(i >= 100)}, test image {i}" for i in indexes]
    assert chosen["fooled"] == [row["correct"] == "false" for row in chosen["rows"]]
    assert len(set(chosen["fooled"])) == 2
    for row, run in zip(chosen["rows"][:-1], members_of(results, written.parent.name), strict=True):
        heavy = np.cumsum(np.sort(np.abs(run.w))[::-1])
        count = np.flatnonzero(heavy >= heavy[-1] / 2)[0] + 1
        assert row["half"] == f"{count} pixels hold half of ‖w‖₁ = {heavy[-1]:.1f}"
    for ends, marks in chosen["marks"]:
        for end, mark in zip(ends, marks, strict=True):
            (x, y), (across, up) = (map(float, point.split(",")) for point in (end, mark))
            assert (across, up) == pytest.approx((x, y), abs=0.1)


SCENES["proved"] = """
for (const box of [false, true]) {
  give("#box", "change", { checked: box });
  for (const eps of [0.1, 0.5]) {
    give("#eps", "input", { value: eps });
    note();
  }
}
"""


def test_the_row_of_the_best_model_says_what_is_proved(results, written, sample, played):
    """And where it is another problem's minimum, and where no weights are of use."""
    best = BestModels(results / sample.name, sample)
    assert (best.at(100).w.any(), best.at(500).w.any()) == (True, False)
    notes = [state["rows"][-1]["note"] for state in played["proved"]]
    proved = "Proved: no linear model has a smaller worst-case training loss at this ε."
    useless = (
        f"From ε = {best.path.radii[-1]:.4f} on, no weights are better than the same answer for "
        "every image."
    )
    assert notes[:2] == [proved, useless]
    less, useless = "without the box, no linear model", "without the box, no weights are better"
    assert notes[2:] == [
        proved.replace("no linear model", less) + " With the box another model may be better.",
        notes[1].replace("no weights are better", useless)
        + " With the box another model may be better.",
    ]


NO_PATH = 'note({ text: document.querySelector("main").innerText, best: facts.best ?? null })'


def test_without_a_path_the_page_has_four_rows_and_says_nothing_of_a_fifth(played):
    (state,) = played["without a path"]
    assert [row["run"] for row in state["rows"]] == MODELS
    assert len(state["shares"]) == 4
    assert "regular" in state["text"]
    assert "best possible" not in state["text"].lower()
    assert "another model" not in state["text"].lower()
    assert state["best"] is None


SCENES["drawing"] = """
const pad = document.getElementById("pad");
const seen = () =>
  ({ pixels: reds(document.querySelector("[data-run] canvas.image")).map((v) => 255 - v) });
give("#eps", "input", { value: 0 });  // where white is 0 and black 1
document.querySelectorAll("#draws button")[1].click();
note();
pointer(pad, "pointerdown", 75, 30);  // an L, whose centre of mass is far from its middle
pointer(pad, "pointermove", 75, 190);
pointer(pad, "pointerdown", 20, 20, 2);  // another finger
pointer(pad, "pointermove", 25, 25, 2);
pointer(pad, "pointermove", 115, 190);
pointer(pad, "pointerup", 115, 190);
pointer(pad, "pointermove", 200, 20);
note(seen());
document.getElementById("clear").click();
note();
document.querySelector("#digits input").click();
note();
"""


def test_a_drawing_is_fitted_like_mnist_and_an_empty_pad_has_no_verdict(
    results, written, sample, played
):
    empty, drawn, cleared, image = played["drawing"]
    for state in (empty, cleared):
        assert (state["index"], state["label"]) == ("", "")
        for row in state["rows"]:
            assert (row["margin"], row["radius"], row["correct"]) == ("", "", "")
            assert row["says"] == "nothing to read yet"
    assert (drawn["index"], drawn["label"], image["label"]) == ("", "1", "-1")
    pixels = np.array(drawn["pixels"]).reshape(28, 28)
    rows, columns = (np.flatnonzero(pixels.max(axis=axis)) for axis in (1, 0))
    assert np.ptp(rows) + 1 in (20, 21)  # 20, and one more where it lies across a pixel's edge
    assert np.ptp(columns) + 1 < 12
    for axis in (0, 1):
        centre = pixels.sum(axis=axis) @ np.arange(28) / pixels.sum()
        assert centre == pytest.approx(13.5, abs=0.1)
    members = members_of(results, written.parent.name)
    best = BestModels(written.parent, sample).at(0)
    for row, run in zip(drawn["rows"], [*members, best], strict=True):
        x = np.float32(pixels.ravel() / 255).astype(np.float64)
        assert float(row["margin"]) == pytest.approx(x @ run.w + run.b, abs=1e-12)


WIDE = """
document.body.style.width = "WIDTHpx";
dispatchEvent(new Event("resize"));
document.querySelector("#draws button").click();
document.body.style.margin = 0;
const right = (element) => element.getBoundingClientRect().right;
const ends = [...document.body.querySelectorAll("*")].map(right);
note({ end: Math.max(...ends), wide: document.documentElement.scrollWidth });
"""
WIDTHS = (360, 768, 1400)
SCENES |= {f"wide{w}": dict(steps=WIDE.replace("WIDTH", str(w)), width=w) for w in WIDTHS}


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_window(played, width):
    (state,) = played[f"wide{width}"]
    assert 0.9 * width < state["end"] <= width
    assert state["wide"] == width


LEGIBLE = """
document.querySelector("#draws button").click();
const colour = (text) => text.match(/[\\d.]+/g).map(Number);
const paper = (element) => {
  const own = colour(getComputedStyle(element).backgroundColor);
  return own[3] === 0 ? paper(element.parentElement) : own;
};
const speaks = (one) => [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
const texts = [...document.querySelectorAll("body *")].filter((one) =>
  !one.closest("svg") && one.checkVisibility() && speaks(one));
const ink = (one) => colour(getComputedStyle(one).color);
note({ texts: texts.map((one) => [ink(one), paper(one), one.textContent]),
  page: paper(document.body), filter: getComputedStyle(document.querySelector("svg")).filter,
  pad: paper(document.getElementById("pad")) });
"""
SCENES |= {s: dict(steps=LEGIBLE, scheme=s) for s in ("light", "dark")}


def contrast(one, other) -> float:
    """Of two colours (r, g, b), each from 0 to 255, as WCAG 2 defines it: from 1 to 21."""
    channels = np.array([one[:3], other[:3]]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    low, high = sorted(linear @ [0.2126, 0.7152, 0.0722])
    return (high + 0.05) / (low + 0.05)


def by_night(colour: str) -> np.ndarray:
    """What invert(1) hue-rotate(180deg) makes of it: the matrix of the Filter Effects module."""
    grey = np.array([0.213, 0.715, 0.072])  # hue-rotate: the part of each colour that is grey stays
    inverted = 255 - np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)])
    return np.clip(2 * grey @ inverted - inverted, 0, 255)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_is_legible_by_day_and_by_night(results, written, played, scheme):
    """Texts have a contrast of 4.5, the lines in the charts of 3, as figures/style.py has it."""
    (state,) = played[scheme]
    assert (np.mean(state["page"][:3]) < 50) == (scheme == "dark")
    assert len(state["texts"]) > 50
    faint = [text for ink, paper, text in state["texts"] if contrast(ink, paper) < 4.5]
    assert faint == []
    assert state["pad"][:3] == [255] * 3  # the pen is black
    night = "invert(1) hue-rotate(180deg)"
    assert state["filter"] == ("none" if scheme == "light" else night)
    for run in members_of(results, written.parent.name):
        assert contrast(by_night(style.colour(run.settings)), (22, 22, 22)) > 3
    for colour in (style.BLUE, "#333333"):
        assert contrast(by_night(colour), (22, 22, 22)) > (3 if colour == style.BLUE else 4.5)


# --- what is on the page -------------------------------------------------------------------------


def facts(page: str) -> dict:
    return json.loads(re.search(r"const facts = (.*);\n", page)[1])


def unpacked(best: dict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights (501, 784), biases and norms s of the model of each step, before they are scaled."""
    kinds = dict(uses="<u2", counts="<u2", pixels="<u2", weights="<f4", b="<f8", s="<f8")
    part = {name: np.frombuffer(base64.b64decode(best[name]), kinds[name]) for name in kinds}
    w = np.zeros((len(part["counts"]), 784))
    rows = np.repeat(np.arange(len(w)), part["counts"])
    w[rows, part["pixels"]] = part["weights"]
    return tuple(np.repeat(values, part["uses"], axis=0) for values in (w, part["b"], part["s"]))


def counts(text: str) -> np.ndarray:
    """How many images are right at each step (501,)."""
    return np.frombuffer(base64.b64decode(text), "<u2")


def check_packed(page: str, best: BestModels) -> None:
    """Every weight and both accuracy curves on the page, against the stored study."""
    packed, steps = facts(page)["best"], np.arange(501)
    w, b, s = unpacked(packed)
    shrunk = 1 - steps / 1000 * s
    models = [best.at(k) for k in steps]
    np.testing.assert_array_equal(w / shrunk[:, None], [model.w for model in models])
    np.testing.assert_array_equal(b / shrunk, [model.b for model in models])
    np.testing.assert_array_equal(best.grid["pixels"], np.count_nonzero(w, axis=1))
    free, boxed = map(counts, packed["correct"])
    np.testing.assert_allclose(free, best.grid["test_accuracy"] * len(best.y), atol=1e-9)
    for correct, box in ((free, False), (boxed, True)):
        shown = [best.accuracy(k, box) * len(best.y) for k in steps[::20]]
        np.testing.assert_allclose(correct[::20], shown, atol=1e-9)


def test_the_best_models_are_packed_without_loss(results, written, sample):
    check_packed(written.read_text("utf-8"), BestModels(results / sample.name, sample))


@pytest.mark.mnist
def test_the_best_models_of_mnist_are_packed_without_loss(mnist):
    page = (RESULTS / mnist.name / "explore.html").read_text("utf-8")
    check_packed(page, BestModels(RESULTS / mnist.name, mnist))


def test_the_page_is_small_and_needs_no_network(written):
    for page in (written, RESULTS / "mnist-0-1" / "explore.html"):
        text = page.read_text("utf-8")
        assert page.stat().st_size < 190_000
        assert re.findall(r"https?://[^\s\"']+", text) == ["http://www.w3.org/2000/svg"]
        assert "default-src 'none'" in text


@pytest.mark.mnist
def test_the_published_page_is_that_of_the_results(mnist):
    dataset = RESULTS / mnist.name
    page = (dataset / "explore.html").read_text("utf-8")
    assert page == explore.page(runs.read(dataset), mnist)


def test_curves_are_counted_from_the_stored_radii(written):
    stored = runs.read(written.parent)
    for model, counted in zip(MODELS, facts(written.read_text("utf-8"))["models"], strict=True):
        for threat, correct in zip(("linf", "linf-box"), counted["correct"], strict=True):
            radii = stored.attacks[threat][model].radii
            assert counts(correct).tolist() == [(radii > k / 1000).sum() for k in range(501)]


def test_images_are_twelve_of_each_digit_from_hard_to_easy():
    stored = runs.read(RESULTS / "mnist-0-1")
    models = stored.choose(MODELS)
    chosen = explore.hard_to_easy(models)
    labels = models[0].attack.labels[chosen]
    assert labels.tolist() == [-1] * 12 + [1] * 12
    assert len(set(chosen)) == 24
    radii = np.mean([model.attack.radii[chosen] for model in models], axis=0)
    for part in (radii[:12], radii[12:]):
        assert part[0] < part[5] < part[-1]
    for label in (-1, 1):
        members = np.flatnonzero(models[0].attack.labels == label)
        ranks = sum(
            scipy.stats.rankdata(model.attack.radii[members], "ordinal") for model in models
        )
        order = members[np.argsort(ranks, kind="stable")]
        wanted = [order[round(k * (len(members) - 1) / 11)] for k in range(12)]
        assert chosen[labels == label].tolist() == wanted


def test_what_is_missing_is_told_in_one_line(sample, tmp_path):
    (tmp_path / sample.name / "runs").mkdir(parents=True)
    done = script("explore.py", "--results", tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "run python train.py --dataset mnist-sample" in done.stderr
    assert list(tmp_path.rglob("*.html")) == []


def test_boxed_attacks_that_are_missing_are_told_with_one_command(results, sample, tmp_path):
    shutil.copytree(results, tmp_path / "results")
    shutil.rmtree(tmp_path / "results" / sample.name / "attacks" / "linf-box")
    with pytest.raises(InputError, match=f"--runs {' '.join(MODELS)} --box"):
        explore.main(results=tmp_path / "results")


def test_a_run_that_is_not_attacked_is_told_and_other_data_sets_are_done(
    results, sample, tmp_path, capsys
):
    both = tmp_path / "results"
    shutil.copytree(results, both)
    shutil.copytree(results / sample.name, both / "mnist-sample-0-2")  # whose files are not its own
    (both / sample.name / "attacks" / "linf" / "robust-eps0.3.npz").unlink()
    with pytest.warns(runs.ResultsWarning), pytest.raises(InputError) as refused:
        explore.main(results=both)
    assert "robust-eps0.3 must be attacked in linf: run python attack.py" in str(refused.value)
    run = runs.load_run(both / sample.name / "runs" / "robust-eps0.3.npz")
    runs.save_attack(both / sample.name, run.name, attack.attack(run, sample))
    capsys.readouterr()
    with pytest.warns(runs.ResultsWarning):
        explore.main(results=both)
    out, err = capsys.readouterr()
    assert out.split() == [str(both / sample.name / "explore.html")]
    assert err.startswith(
        "NOTICE: no page for mnist-sample-0-2: regular is needed: run python train"
    )
