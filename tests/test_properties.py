"""Every public function on what people hand over: right, or refused by a message that names it.

A row is valid arguments, and what is compared of an answer; `spoilers` says what happens to them.
The other rows, of what completes matrices, stand in `test_properties_completion.py`.
"""

import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from spoilers import Draws, cases, judge, leaves

from lop_utils import (
    compression,
    descent,
    features,
    init,
    law,
    losses,
    mean_field,
    networks,
    readouts,
    rules,
    spectra,
)
from lop_utils.book import claims, cost, live, plots, ratings, scale, sharded
from lop_utils.observed import ObservedEntries

MODULES = (
    "compression descent features init law losses mean_field networks readouts rules spectra "
    "book.claims book.cost book.live book.plots book.ratings book.scale book.sharded"
).split()


class Drawn(Draws):
    """Valid arguments from a seed and sizes."""

    def __init__(self, seed: int, d: int, N: int, K: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.d, self.N, self.K, self.r = d, N, K, 1
        self.Z, self.y = self.matrix(d, N) + 0.3, torch.arange(N) % K
        self.s = self.matrix(d).abs().sort(descending=True).values
        self.Phi = self.matrix(d, 1) @ self.matrix(1, d)
        self.Ws0 = init.orthogonal((d,) * 3, 0.3, generator=self.generator)
        self.Ws = [self.matrix(4, 5), self.matrix(3, 4)]
        self.X, self.Y = self.matrix(5, N), self.matrix(3, N)


class Row(NamedTuple):
    """A function's valid arguments, what is compared of its answer, and what it may do."""

    make: Callable[[Drawn], dict[str, Any]]
    call: Callable[..., Any]
    but: str = "$."
    """Pattern of spoilers that are no fault of it, see `spoilers.cases`."""
    degrees: Mapping[str, float] = MappingProxyType({})
    """How the answer grows with an argument: ``f(c * Z) = c ** degree * f(Z)``."""
    options: Mapping[str, Any] = MappingProxyType({})
    """Of `spoilers.judge`."""


F64 = {"dtype": torch.float64}
UNCHECKED = {"but": "Ws: last-(nan|inf|-inf|sparse)", "options": {"unchecked": True}}
ONES = torch.ones(3, 5, **F64)
PURE = {"unit": 1.0}  # of no scale of its own
INFINITE = {"infinite": True}
FIELD = {"L": 2, "gamma0": 0.5}
SAID = ("W", "Ws", "Z", "loss", "rho", "d_y", "f", "values", "Phi")  # beside the arguments
SEED = "generator: (minus|none)"


def trained(Ws, loss, rule=None, eta=0.1, lam=0.01, steps=3, every=1):
    run = descent.train(Ws, loss, rule, eta=eta, lam=lam, steps=steps, every=every)
    return [(it.t, it.Ws, it.loss) for it in run]


def at_layers(make):
    """Return a loss of drawn data, at layers."""
    return lambda Ws, **data: tuple(make(**data)(Ws))


def probed(Z, y):
    kind = {"dtype": Z.dtype} if isinstance(Z, torch.Tensor) and Z.dtype == torch.float32 else F64
    probe = readouts.Probe(
        torch.arange(35).reshape(5, 7).to(**kind)[:, :5] % 4, torch.eye(5, 1, **kind)
    )
    return probe.predict(Z), probe.accuracy(Z, y)


def claimed(**numbers):
    try:
        return claims.claim("a.b", "a half", source="this book", **numbers).measured
    except claims.ClaimError as error:
        raise ValueError(f"measured: {error}") from error


def plane(A):
    return A @ A.T


def fixed_bases(Ws0, Phi, r, eps):
    found = law.invariant_subspaces(Ws0, Phi, r, eps)
    k = found.core
    return [plane(V[:, :k]) for V in found.V], found.core, found.shrinking, found.frozen


def blocks(Ws, spaces):
    return law.block_form(Ws, spaces)


def spaces(d):
    return law.invariant_subspaces(d.Ws0, d.Phi, d.r, 0.3)


def narrow(d):
    return compression.compress(d.Ws0, d.Phi, d.r, 0.3)


def wide_again(Ws0, Phi, rhat, eps):
    small = compression.compress(Ws0, Phi, rhat, eps)
    return compression.reconstruct(small, small.Ws, 0.5), [W.shape for W in small.Ws]


def seen(d):
    rows, cols = torch.arange(8) // 2, torch.arange(8) % 3
    return ObservedEntries(rows, cols, d.matrix(8), (5, 3))


def finite(**how):
    Ws, loss, rate = mean_field.finite_width(**how)
    return loss(Ws).value, [G * rate for G in loss([2 * W for W in Ws]).grads]


def grams(Ws):
    return [W.T @ W for W in Ws], torch.linalg.multi_dot(
        [*Ws[::-1], torch.eye(Ws[0].shape[1]).to(Ws[0])]
    )


def activations(Ws, X):
    return networks.forward(Ws, X, [torch.relu, networks.batch_norm_relu])


def recorded(Ws, every, save_every):
    run = descent.train(Ws, losses.squared_error(ONES), eta=0.01, steps=4)
    return descent.record(run, every=every, save_every=save_every, loss=lambda it: it.loss)


def drawn_on(function):
    def call(**arguments):
        ax = Figure().subplots()
        found = function(ax, **arguments)
        lines = [line.get_ydata() for line in ax.lines]
        return (
            [y[y == y] for y in lines]
            if lines
            else found.get_array()
            if found
            else [t.xy[1] for t in ax.texts]
        )

    return call


ROWS = {
    "features.class_means": Row(lambda d: d("Z y"), features.class_means, degrees={"Z": 1}),
    "features.scatter": Row(lambda d: d("Z y"), features.scatter, degrees={"Z": 2}),
    "features.compression_metric": Row(
        lambda d: d("Z y"), features.compression_metric, degrees={"Z": 0}, options=INFINITE
    ),
    "features.discrimination_metric": Row(
        lambda d: d("Z y"), features.discrimination_metric, degrees={"Z": 0}
    ),
    "features.centred_separation": Row(
        lambda d: d("Z y", y=torch.arange(d.N) % 3), features.centred_separation, degrees={"Z": 0}
    ),
    "features.layerwise": Row(
        lambda d: d("y", outputs=[d.Z, d.matrix(3, d.N)]),
        lambda outputs, y: features.layerwise(lambda *of: features.scatter(*of).within, outputs, y),
    ),
    "features.geometric_fit": Row(lambda d: {"values": d.s}, features.geometric_fit),
    "readouts.neural_collapse": Row(
        lambda d: d("Z y", W=d.matrix(d.K, d.d)),
        readouts.neural_collapse,
        but="W: none",
        degrees={"Z": 0, "W": 0},
        options=INFINITE | PURE,
    ),
    "readouts.linear_probe": Row(
        lambda d: d("Z y", ridge=0.1),
        lambda Z, y, ridge: readouts.linear_probe(Z, y, ridge=ridge).predict(Z),
        degrees={"Z": 0},
    ),
    "readouts.Probe": Row(
        lambda d: {"Z": d.matrix(5, d.N), "y": d.y},
        probed,
    ),
    "readouts.principal_components": Row(
        lambda d: d("Z", k=2), readouts.principal_components, degrees={"Z": 1}
    ),
    "spectra.principal_angles": Row(
        lambda d: {"P": d.Ws0[0][:, :3] / 0.3, "Q": d.Ws0[1][:, :2] / 0.3}, spectra.principal_angles
    ),
    "spectra.vector_angles": Row(
        lambda d: {"U": d.matrix(5, 3), "V": d.matrix(5, 3)},
        spectra.vector_angles,
        degrees={"U": 0, "V": 0},
    ),
    "spectra.singular_angles": Row(
        lambda d: {"W": d.matrix(5, 5), "W_ref": d.matrix(5, 5), "r": 1},
        spectra.singular_angles,
        degrees={"W": 0, "W_ref": 0},
    ),
    "spectra.effective_rank": Row(lambda d: d("s"), spectra.effective_rank, degrees={"s": 0}),
    "spectra.polar": Row(
        lambda d: {"G": d.matrix(4, 3), "rtol": 1e-6}, spectra.polar, degrees={"G": 0}
    ),
    "spectra.newton_schulz": Row(
        lambda d: {"G": d.matrix(4, 3), "steps": 5}, spectra.newton_schulz, degrees={"G": 0}
    ),
    "spectra.numerical_rank": Row(
        lambda d: d("s", rtol=0.3), spectra.numerical_rank, degrees={"s": 0}
    ),
    "spectra.nuclear_norm_rank": Row(
        lambda d: d("s", share=0.7), spectra.nuclear_norm_rank, degrees={"s": 0}
    ),
    "law.invariant_subspaces": Row(
        lambda d: d("Ws0 Phi r", eps=0.3), fixed_bases, degrees={"Phi": 0}
    ),
    "law.block_form": Row(lambda d: {"Ws": d.Ws0, "spaces": spaces(d)}, law.block_form),
    "law.block_errors": Row(
        lambda d: {"Ws": d.Ws0[:1] + [d.matrix(d.d, d.d)], "spaces": spaces(d), "rho": d.matrix(2)},
        law.block_errors,
    ),
    "descent.train": Row(
        lambda d: d("Ws", Phi=d.matrix(3, 5), eta=0.01, lam=0.01, steps=3, every=2),
        lambda Ws, Phi, **options: trained(Ws, losses.squared_error(Phi), **options),
    ),
    "descent.record": Row(lambda d: d("Ws", every=2, save_every=60.0), recorded),
    "descent.resume": Row(
        lambda d: {"Ws0": d.Ws},
        lambda Ws0: descent.resume("no-such-file.pt", Ws0) and [],
        "Ws0: .*",  # without a file they are handed back, whatever they are
    ),
    "networks.end_to_end": Row(lambda d: d("Ws"), networks.end_to_end),
    "networks.forward": Row(lambda d: d("Ws X"), activations),
    "networks.batch_norm_relu": Row(lambda d: d("Z"), networks.batch_norm_relu),
    "networks.fix_statistics": Row(
        lambda d: d("Ws X"),
        lambda Ws, X: networks.fix_statistics(Ws, X, [None, networks.batch_norm_relu])[1].keywords,
    ),
    "networks.stack": Row(lambda d: {"runs": d.Ws}, lambda runs: networks.stack([runs, runs])),
    "networks.to_torch": Row(lambda d: d("Ws"), networks.to_torch),
    "networks.from_torch": Row(
        lambda d: {"model": d.Ws},
        lambda model: networks.from_torch({f"{l}.weight": W for l, W in enumerate(model)}),
        "model: (none|last-sparse)",
    ),
    **{
        f"init.{draw.__name__}": Row(
            lambda d: {"dims": (3, 4, 2), "eps": 0.1, "generator": 3}, draw, SEED
        )
        for draw in (init.orthogonal, init.gaussian, init.uniform)
    },
    "init.aligned": Row(
        lambda d: {"Phi": d.matrix(3, 3), "L": 2, "eps": 0.1, "generator": 3},
        lambda Phi, L, eps, generator: grams(init.aligned(Phi, L, eps, generator=generator))[0],
        SEED,
    ),
    "init.spectral": Row(
        lambda d: {"M": d.matrix(4, 3), "k": 2, "L": 3, "eps": 0.1},
        lambda M, k, L, eps: grams(init.spectral(M, k, L, eps)),
        degrees={"M": 0},
    ),
    "losses.of_product": Row(
        lambda d: d("Ws"),
        losses.of_product(lambda W: (0.5 * (W * W).sum((-2, -1)), W)),
        UNCHECKED["but"] + r"|\*: b?float16",  # what is given is not checked
        options=UNCHECKED["options"],
    ),
    "losses.squared_error": Row(
        lambda d: d("Ws", Phi=d.matrix(3, 5)), at_layers(losses.squared_error), **UNCHECKED
    ),
    "losses.least_squares": Row(
        lambda d: d("Ws X Y"), at_layers(losses.least_squares), **UNCHECKED
    ),
    "losses.masked": Row(
        lambda d: d("Ws", Omega=d.matrix(3, 5) > 0, Phi=d.matrix(3, 5)),
        at_layers(losses.masked),
        **UNCHECKED,
    ),
    "losses.sensing": Row(
        lambda d: d("Ws", As=d.matrix(6, 3, 5), y=d.matrix(6)),
        at_layers(losses.sensing),
        **UNCHECKED,
    ),
    "losses.network": Row(
        lambda d: d("Ws X Y", alpha=0.5),
        lambda Ws, X, Y, alpha: tuple(losses.network(X, Y, [torch.relu, None], alpha=alpha)(Ws)),
        **UNCHECKED,
    ),
    "rules.gradient_descent": Row(
        lambda d: {"Ws": [d.matrix(2, 4, 5), d.matrix(2, 3, 4)], "eta": 0.1 * d.matrix(2).abs()},
        lambda Ws, eta: trained(Ws, losses.squared_error(ONES), rules.gradient_descent(), eta=eta),
        "eta: (list|rows)",  # one for each layer
    ),
    "rules.momentum": Row(
        lambda d: d("Ws", beta=0.5),
        lambda Ws, beta: trained(Ws, losses.squared_error(ONES), rules.momentum(beta)),
    ),
    "rules.from_torch": Row(
        lambda d: d("Ws"),
        lambda Ws: trained(Ws, losses.squared_error(ONES), rules.from_torch(torch.optim.Adam)),
    ),
    "rules.nesterov": Row(
        lambda d: d("Ws", beta=0.5),
        lambda Ws, beta: trained(Ws, losses.squared_error(ONES), rules.nesterov(beta)),
    ),
    "rules.muon": Row(
        lambda d: d("Ws", beta=0.5),
        lambda Ws, beta: trained(Ws, losses.squared_error(ONES), rules.muon(beta)),
    ),
    "law.rho_recursion": Row(
        lambda d: {"eps": 0.5, "eta": 0.1, "lam": 0.1, "L": 3, "steps": 4},
        law.rho_recursion,
        but="eps: list",
    ),
    "mean_field.solve": Row(
        lambda d: {"K": plane(d.matrix(3, 4)) / 4, "y": d.s[:3], **FIELD, "steps": 3, "eta": 0.1},
        lambda **how: [getattr(mean_field.solve(**how), name) for name in ("loss", "H", "G")],
    ),
    "mean_field.finite_width": Row(
        lambda d: (
            {"X": d.matrix(4, 3), "y": d.s[:3], **FIELD, "width": 6, "runs": 2} | {"generator": 1}
        ),
        finite,
        SEED,
    ),
    "mean_field.solve_residual": Row(
        lambda d: (
            {"K": plane(d.matrix(3, 4)) / 4, "y": d.s[:3], **FIELD, "steps": 3, "eta": 0.1}
            | {"beta": 0.5}
        ),
        lambda **how: [
            getattr(mean_field.solve_residual(**how), name) for name in ("loss", "H", "G")
        ],
    ),
    "mean_field.marchenko_pastur": Row(
        lambda d: {"q": 0.5, "nodes": 5}, mean_field.marchenko_pastur
    ),
    "losses.Minibatches": Row(
        lambda d: d("Ws X Y", batch=3, noise=0.1, generator=5),
        lambda Ws, X, Y, **how: tuple(losses.Minibatches(losses.least_squares, X, Y, **how)(Ws)),
        f"{SEED}|{UNCHECKED['but']}",
        options=UNCHECKED["options"],
    ),
    "compression.low_rank_approximation": Row(
        lambda d: {"M": d.matrix(5, 4), "rhat": 2},
        compression.low_rank_approximation,
        degrees={"M": 1},
    ),
    "compression.compress": Row(
        lambda d: d("Ws0 Phi", rhat=d.r, eps=0.3), wide_again, degrees={"Phi": 0}
    ),
    "compression.reconstruct": Row(
        lambda d: {"compressed": narrow(d), "Ws": [W + 0.1 for W in narrow(d).Ws], "rho": 0.3},
        compression.reconstruct,
    ),
    "compression.stable_eta": Row(
        lambda d: {"s": 2.0, "gamma": 0.5, "L": 3}, compression.stable_eta
    ),
    "compression.stable_gamma": Row(
        lambda d: {"s": 2.0, "eta": 0.5, "L": 3}, compression.stable_gamma
    ),
    "book.claims.claim": Row(
        lambda d: {"measured": 0.5, "near": 0.5, "rtol": 1e-3},
        claimed,
        "(near|rtol): none",
    ),
    "book.cost.calibrate": Row(
        lambda d: {"side": 5, "k": 2, "rows": 4},
        lambda **sizes: all(constant > 0 for constant in cost.calibrate(**sizes)),
        "rows: none|.*: (numpy|int8|one|more|tensor)",  # each would take a second
    ),
    **{
        f"book.cost.{work.__name__}": Row(
            lambda d, work=work: {
                name: 10 + number for number, name in enumerate(inspect.signature(work).parameters)
            },
            work,
        )
        for work in (
            cost.full_step,
            cost.dense_step,
            cost.sampled_step,
            cost.core_step,
            cost.parameters,
            cost.full_bytes,
            cost.dense_bytes,
            cost.sampled_bytes,
            cost.message_size,
        )
    },
    "book.scale.load_result": Row(
        lambda d: {"id": "intro-spectrum"}, lambda id: scale.load_result(id)["seed"]
    ),
    **{
        f"book.live.{function.__name__}": Row(
            lambda d: {"name": "law"}, lambda name, function=function: len(function(name))
        )
        for function in (live.controls, live.module, live.still)
    },
    "book.ratings.simulate_ratings": Row(
        lambda d: {"users": 6, "items": 5, "count": 12, "rank": 2, "noise": 0.5, "generator": 1},
        lambda **how: ratings.simulate_ratings(**how),
        SEED,
    ),
    "book.sharded.row_blocks": Row(
        lambda d: {"seen": seen(d), "parts": 2},
        sharded.row_blocks,
    ),
    "book.sharded.rows_between": Row(
        lambda d: {"seen": seen(d), "block": (1, 3)}, sharded.rows_between
    ),
    "book.plots.spectrum_over_time": Row(
        lambda d: {"t": torch.arange(4.0), "values": d.matrix(4, 5).abs(), "r": 1},
        drawn_on(plots.spectrum_over_time),
    ),
    "book.plots.label_groups": Row(lambda d: d("", sv=d.s, r=1, d=7), drawn_on(plots.label_groups)),
    "book.plots.compared_spectra": Row(
        lambda d: {"t": torch.arange(4.0), "runs": d.matrix(4, 5).abs(), "r": 1},
        drawn_on(lambda ax, t, runs, r: plots.compared_spectra([ax], t, {"a": runs}, r)),
    ),
    "book.plots.end_labels": Row(
        lambda d: {"labels": 0.5},
        drawn_on(lambda ax, labels: plots.end_labels(ax, [(labels, "a", "k")])),
    ),
    "book.plots.magnitudes": Row(lambda d: {"A": d.matrix(3, 4)}, drawn_on(plots.magnitudes)),
    "book.live.live": Row(
        lambda d: {"d": 50, "eps": 0.5},
        lambda **how: [getattr(live.live("law", **how).figure, name) for name in how],
    ),
}

# Of whose arguments nothing can be spoiled: they are functions, figures, results of ours, or what
# `scale` keeps whatever it is; what `sharded` sends has tests of its own, between processes.
LEFT_OUT = """book.claims.ClaimError book.cost.seconds book.live.Explorer book.live.Live
book.live.explore book.plots.compact_svg book.plots.use_style book.scale.checkpoint book.scale.pick
book.scale.save_result book.sharded.gather_rows book.sharded.summed_loss
compression.with_outer_layers mean_field.MeanField""".split()


def test_every_public_name_has_a_row():
    names = set()
    for module in MODULES:
        for name, thing in vars(import_module(f"lop_utils.{module}")).items():
            result = inspect.isclass(thing) and issubclass(thing, tuple)
            if name in import_module(f"lop_utils.{module}").__all__ and callable(thing):
                names |= set() if result else {f"{module}.{name}"}
    assert names - {"losses.Loss", "networks.Activation", "rules.Memory"} == {*ROWS, *LEFT_OUT}


sizes = dict(
    seed=st.integers(0, 2**16), d=st.integers(5, 7), N=st.integers(9, 12), K=st.integers(2, 4)
)
few = settings(
    derandomize=True, database=None, deadline=None, max_examples=2, phases=[Phase.generate]
)


@pytest.mark.parametrize("name", ROWS)
@given(**sizes)
@few
def test_an_answer_is_right_or_refused_by_name(name, seed, d, N, K):
    row = ROWS[name]
    valid, wrong = row.make(Drawn(seed, d, N, K)), {}
    for what, (argument, spoiler) in cases(valid, row.but).items():
        try:
            judge(row.call, valid, argument, spoiler, also=SAID, **row.options)
        except Exception as error:
            wrong[what] = f"{type(error).__name__}: {error}"[:300]
    assert wrong == {}


@pytest.mark.parametrize("name", [name for name in ROWS if ROWS[name].degrees])
@given(power=st.integers(-30, 30), **sizes)
@settings(few, max_examples=15)
def test_a_common_scale_does_what_it_says(name, power, seed, d, N, K):
    row = ROWS[name]
    valid = row.make(Drawn(seed, d, N, K))
    expected = leaves(row.call(**valid))
    for argument, degree in row.degrees.items():
        found = leaves(row.call(**valid | {argument: 10.0**power * valid[argument]}))
        for A, B in zip(found, expected, strict=True):
            B = 10.0 ** (power * degree) * B.double()
            size = B.abs().max().item() + row.options.get("unit", 0.0)
            assert torch.allclose(A.double(), B, rtol=1e-9, atol=1e-9 * size)
