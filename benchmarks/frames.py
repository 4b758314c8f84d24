"""Time a frame of the live figures in Chromium, and a step of the core there against torch.

A frame trains for a while and draws; 60 frames a second leave 16.7 ms, and a phone may have a
quarter of this machine's speed. The law is timed at rank 5 and depth 5, the others at their
largest; the figure of transfer, which computes all anew when a control moves, while its width is
dragged. A step: the core of rank 5 and depth 5 in the page, the same core in torch, and the network
of width 1000 it stands for.
"""

import statistics
import sys
from functools import partial
from pathlib import Path

from common import arguments, interleaved, record, show

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
import stills
import torch
from chromium import HOW_TO_GET, find_chromium, launch

from lop_utils import compression, data, init, losses
from lop_utils.book import live

GOAL = 4e-3  # seconds a frame
SMALL = {
    "law": {"steps": 100},
    "completion": {"d": 16, "steps": 100},
    "features": {"n": 2},
    "noise": {"steps": 1000},
}
LARGEST = {
    "law": {"r": 5, "L": 5, "steps": 2000},
    "completion": {"d": 64, "r": 5, "L": 4, "p": 1.0, "steps": 3000},
    "features": {"K": 5, "n": 40, "L": 8},
    "noise": {"d": 50, "batch": 300, "steps": 200_000},
}
FRAMES = """
globalThis.frames = [];
const frame = globalThis.requestAnimationFrame;
globalThis.requestAnimationFrame = (work) => frame((time) => {
  const began = performance.now();
  work(time);
  frames.push(performance.now() - began);
});
"""
# Milliseconds of each width on the way of a slider: all curves anew, on samples as many as not.
DRAGGED = """([root, widths]) => widths.map((N) => {
  const began = performance.now();
  root.lopStage.set("N", N);
  return performance.now() - began;
})"""
# Of many blocks, seconds a step; the clock of a page is too coarse for one.
STEPS = """([settings, blocks, steps]) => {
  const M = lop.overlap(settings.d, settings.r, lop.uniform(1)), taken = [];
  for (let block = 0; block < blocks; block++) {
    const network = new lop.Network(settings, lop.coreStart(settings, M));
    const began = performance.now();
    while (network.t < steps) network.advance();
    taken.push((performance.now() - began) / 1e3 / steps);
  }
  return taken;
}"""


def frames_of(browser, name: str, settings: dict, at_least: int) -> list[float]:
    """Return the seconds of the frames in which a figure plays, the slowest last."""
    page = stills.page_with(browser, name, FRAMES, **settings)
    page.get_by_role("button", name="Reset").click()
    page.evaluate("() => { frames.length = 0; }")
    page.get_by_role("button", name="Play").click()
    page.wait_for_function("(n) => frames.length >= n", arg=at_least, timeout=60_000)
    found = page.evaluate("frames")
    page.close()
    return sorted(each / 1e3 for each in found)


def redraws_of(browser, at_least: int) -> list[float]:
    """Return the seconds of drawing transfer anew at each of so many widths, the slowest last."""
    page = stills.page_with(browser, "transfer", shown=1, data=1)
    root = page.query_selector(".lop-live")
    found = page.evaluate(DRAGGED, [root, [100 + 10 * i for i in range(at_least)]])
    page.close()
    return sorted(each / 1e3 for each in found)


def step_in_the_page(browser, settings: dict, blocks: int, steps: int) -> list[float]:
    page = browser.new_page()
    names = "coreStart, Network, overlap, uniform"
    code = f"{live.module('law')}\nglobalThis.lop = {{ {names} }};"
    page.add_script_tag(content=code, type="module")
    page.wait_for_function("() => globalThis.lop")
    found = page.evaluate(STEPS, [settings, blocks, steps])
    page.close()
    return found


def told(found: list[float]) -> list[float]:
    """Return the median, what 95% are below, both in milliseconds, and the share above the goal."""
    late = sum(each > GOAL for each in found) / len(found)
    return [statistics.median(found) * 1e3, found[int(0.95 * len(found))] * 1e3, late]


def main() -> None:
    options = arguments(__doc__.splitlines()[0], threads=1)
    if (executable := find_chromium()) is None:
        sys.exit(HOW_TO_GET)
    quick = options.quick
    d, r, L, eps, eta = 30 if quick else 1000, 5, 5, 0.5, 1e-3
    generator = torch.Generator().manual_seed(0)
    strengths = torch.linspace(3, 1, r, dtype=torch.float64)
    Phi = data.low_rank_target(d, d, strengths, generator=generator)
    Ws = init.orthogonal((d,) * (L + 1), eps, generator=generator)
    small = compression.compress(Ws, Phi, r, eps)
    calls = {
        "core": partial(losses.squared_error(small.Phi), small.Ws),
        "wide": partial(losses.squared_error(Phi), Ws),
    }
    settings = {"d": d, "r": r, "L": L, "eps": eps, "eta": eta, "lam": 0.0}
    with launch(executable) as browser:
        taken = step_in_the_page(browser, settings, 2 if quick else 40, 20 if quick else 500)
        torch_times = {
            name: interleaved({name: call}, seconds=0.1 if quick else 8.0)[name].median
            for name, call in calls.items()
        }
        again = step_in_the_page(browser, settings, 2 if quick else 40, 20 if quick else 500)
        rows = []
        for name in stills.names():
            if name in LARGEST:
                settings = SMALL[name] if quick else LARGEST[name]
                rows.append([name, *told(frames_of(browser, name, settings, 10 if quick else 200))])
        redraw = told(redraws_of(browser, 10 if quick else 200))
    page = statistics.median(taken + again)
    columns = ["figure", "ms a frame", "95% below", "above 4 ms"]
    missed = [row[0] for row in rows if row[1] > GOAL * 1e3]
    rows.append(["transfer, dragged", *redraw])  # it moves when a hand does: no goal
    show(columns, rows)
    steps = ["step", "microseconds", "of the page's"]
    times = {"page": page, "torch, core": torch_times["core"], "torch, wide": torch_times["wide"]}
    lines = [[name, seconds * 1e6, seconds / page] for name, seconds in times.items()]
    show(steps, lines)
    if not quick:
        tables = {"columns": columns, "rows": rows, "step_columns": steps, "steps": lines}
        record("frames", {"d": d, "r": r, "L": L, "goal": GOAL, **tables})
    if missed and not quick:
        sys.exit(f"{', '.join(missed)}: half of the frames take more than {GOAL * 1e3:g} ms")


if __name__ == "__main__":
    main()
