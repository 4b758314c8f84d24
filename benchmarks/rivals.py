"""Complete simulated ratings of five kinds beside cmfrec, Surprise, myFM and pymanopt.

Each at its documented defaults, and with the best of a few settings, which it tries on nine tenths
of what it is given and then fits to all. Judged on a tenth that nobody sees. Seconds are the
processor's, on one thread. ``--large ENTRIES`` instead fits one set of many entries, in a process
each, and says what time and memory that took.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from common import arguments, record, show

from lop_utils import completion, observed
from lop_utils.observed import ObservedEntries

FOLDER = Path(__file__).resolve().parent.parent / ".venv" / ".rivals"
RANK = 10  # told to all that ask for one; the truth is lower

Predict = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Kind(NamedTuple):
    """What is simulated: a mean, effects of users and items, taste of a rank, noise."""

    users: int
    items: int
    count: int
    rank: int
    noise: float
    skew: float = 0.0  # standard deviation of the logarithm of activity and of popularity
    rounded: bool = True


KINDS = {
    "dense": Kind(400, 300, 48_000, 5, 0.6),
    "skewed": Kind(943, 1682, 100_000, 6, 0.8, 1.2),
    "few a row": Kind(6000, 1000, 60_000, 4, 0.7, 0.5),
    "noisy": Kind(800, 600, 60_000, 3, 1.6),
    "nearly exact": Kind(500, 400, 40_000, 5, 1e-3, rounded=False),
}
QUICK = {"dense": Kind(80, 60, 2400, 2, 0.5)}


def simulated(kind: Kind, seed: int) -> ObservedEntries:
    draw = np.random.default_rng(seed)

    def places(size: int, count: int) -> np.ndarray:
        share = np.exp(kind.skew * draw.standard_normal(size)).cumsum()
        return np.searchsorted(share, share[-1] * draw.random(count))

    seen = np.empty(0, dtype=np.int64)
    while len(seen) < kind.count:  # until there are enough that differ
        more = places(kind.users, kind.count) * kind.items + places(kind.items, kind.count)
        seen = np.unique(np.append(seen, more))
    rows, cols = np.divmod(np.sort(draw.permutation(seen)[: kind.count]), kind.items)
    values = 3.6 + 0.4 * draw.standard_normal(kind.users)[rows]
    values += 0.5 * draw.standard_normal(kind.items)[cols]
    for _ in range(kind.rank):
        p, q = draw.standard_normal(kind.users), draw.standard_normal(kind.items)
        values += 0.7 * p[rows] * q[cols] / kind.rank**0.5
    values += kind.noise * draw.standard_normal(kind.count)
    if kind.rounded:
        values = values.round().clip(1, 5)
    return ObservedEntries(rows, cols, values, (kind.users, kind.items))


def package(seen: ObservedEntries, **options) -> Predict:
    # The same share and seed: what `complete` holds out, the effects have not seen.
    train, _ = observed.split(seen, 0.1, generator=0)
    effects = observed.fit_effects(train, shrinkage=None)
    taste = seen.with_values(seen.values - effects.predict(seen.rows, seen.cols))
    found = completion.complete(taste, RANK, progress=False, **options)
    return lambda rows, cols: (effects.predict(rows, cols) + found.predict(rows, cols)).numpy()


def cmfrec(seen: ObservedEntries, k: int = 40, lambda_: float = 10.0) -> Predict:
    import cmfrec
    from scipy.sparse import coo_matrix

    places = (seen.rows.numpy(), seen.cols.numpy())
    X = coo_matrix((seen.values.numpy(), places), shape=seen.shape)
    model = cmfrec.CMF(k=k, lambda_=lambda_, nthreads=1, verbose=False).fit(X)
    return lambda rows, cols: model.predict(user=rows, item=cols)


def surprise(seen: ObservedEntries, **options) -> Predict:
    import surprise

    rows, cols, values = (A.tolist() for A in (seen.rows, seen.cols, seen.values))
    by_row: dict[int, list] = {u: [] for u in range(seen.shape[0])}
    by_col: dict[int, list] = {i: [] for i in range(seen.shape[1])}
    for u, i, rating in zip(rows, cols, values, strict=True):
        by_row[u].append((i, rating))
        by_col[i].append((u, rating))
    names = [dict(zip(of, of, strict=True)) for of in (by_row, by_col)]
    scale = min(values), max(values)
    data = surprise.Trainset(by_row, by_col, *seen.shape, len(values), scale, *names)
    model = surprise.SVD(random_state=0, **options).fit(data)
    return lambda rows, cols: (
        data.global_mean
        + (model.bu[rows] + model.bi[cols])
        + (model.pu[rows] * model.qi[cols]).sum(1)
    )


def myfm(seen: ObservedEntries, rank: int = RANK, n_iter: int = 100) -> Predict:
    import myfm
    from scipy.sparse import csr_matrix

    users, width = seen.shape[0], sum(seen.shape)

    def one_hot(rows, cols):
        where = np.stack([rows, users + np.asarray(cols)], 1).ravel()
        starts = np.arange(0, len(where) + 1, 2)
        return csr_matrix((np.ones(len(where)), where, starts), shape=(len(rows), width))

    groups = np.repeat([0, 1], seen.shape)
    model = myfm.MyFMRegressor(rank=rank, random_seed=0)
    X = one_hot(seen.rows.numpy(), seen.cols.numpy())
    model.fit(X, seen.values.numpy(), n_iter=n_iter, grouping=groups.tolist())
    return lambda rows, cols: model.predict(one_hot(rows, cols))


def pymanopt(seen: ObservedEntries, rank: int = RANK) -> Predict:
    """Conjugate gradients over matrices of the rank, of what effects leave, from the SVD."""
    import pymanopt
    from scipy.sparse import csr_array
    from scipy.sparse.linalg import svds

    effects = observed.fit_effects(seen)
    rows, cols = seen.rows.numpy(), seen.cols.numpy()
    rest = (seen.values - effects.predict(rows, cols)).numpy()
    manifold = pymanopt.manifolds.FixedRankEmbedded(*seen.shape, rank)

    def residual(u, s, vt):
        return np.einsum("nk,nk->n", u[rows] * s, vt.T[cols]) - rest

    def sparse(values):
        return csr_array((values, (rows, cols)), shape=seen.shape)

    @pymanopt.function.numpy(manifold)
    def cost(u, s, vt):
        return 0.5 * np.square(residual(u, s, vt)).sum()

    @pymanopt.function.numpy(manifold)
    def gradient(u, s, vt):
        R = sparse(residual(u, s, vt))
        Rv, Rtu = R @ vt.T, R.T @ u
        return Rv * s, np.einsum("ik,ik->k", u, Rv), Rtu.T * s[:, None]

    u, s, vt = svds(sparse(rest) / seen.p, rank, random_state=0)
    problem = pymanopt.Problem(manifold, cost, euclidean_gradient=gradient)
    point = type(manifold.random_point())  # which has no public name
    start = point(u[:, ::-1].copy(), s[::-1].copy(), vt[::-1].copy())
    optimiser = pymanopt.optimizers.ConjugateGradient(verbosity=0)
    u, s, vt = optimiser.run(problem, initial_point=start).point
    return lambda rows, cols: (
        effects.predict(rows, cols).numpy() + np.einsum("nk,nk->n", u[rows] * s, vt.T[cols])
    )


CONTENDERS: dict[str, tuple[Callable[..., Predict], list[dict]]] = {
    "package": (
        package,
        [{}, *(dict(eps=eps, lam=lam) for eps, lam in ((0.1, 0.02), (0.2, 0.1), (0.3, 0.15)))],
    ),
    "cmfrec": (
        cmfrec,
        [dict(k=k, lambda_=lam) for k in (RANK, 40) for lam in (0.1, 1.0, 3.0, 10.0, 30.0)],
    ),
    "Surprise": (
        surprise,
        [dict(n_factors=RANK, reg_all=reg, n_epochs=n) for n in (20, 60) for reg in (0.02, 0.1)],
    ),
    "myFM": (myfm, [dict(rank=rank, n_iter=300) for rank in (3, 6, RANK)]),
    "pymanopt": (pymanopt, [dict(rank=rank) for rank in (2, 4, 6, RANK)]),
}


def error(predict: Predict, train: ObservedEntries, test: ObservedEntries) -> float:
    found = predict(test.rows.numpy(), test.cols.numpy())
    found = np.clip(found, train.values.min().item(), train.values.max().item())
    return float(np.square(found - test.values.numpy()).mean() ** 0.5)


def at_defaults(fit, settings, train, test):
    return error(fit(train), train, test)


def searched(fit, settings, train, test):
    part, judge = observed.split(train, 0.1, generator=1)
    best = min(settings, key=lambda options: error(fit(part, **options), part, judge))
    return error(fit(train, **best), train, test)


def compared(names: list[str], kinds: dict[str, Kind], seeds: int) -> list[dict]:
    rows = []
    for kind_name, kind in kinds.items():
        found: dict[tuple[str, str], list] = {}
        for seed in range(seeds):
            train, test = observed.split(simulated(kind, seed), 0.1, generator=seed)
            for name in names:
                for way in (at_defaults, searched):
                    began = time.process_time()
                    try:
                        rmse = way(*CONTENDERS[name], train, test)
                    except ValueError as refused:
                        print(f"{kind_name}, {name}: {refused}")
                        rmse = None
                    run = rmse, time.process_time() - began
                    found.setdefault((name, way.__name__), []).append(run)
        for name in names:
            row = {"kind": kind_name, "entries": kind.count, "contender": name}
            for way in ("at_defaults", "searched"):
                errors, seconds = zip(*found[name, way], strict=True)
                known = None not in errors
                row[way] = [statistics.mean(errors) if known else None, statistics.mean(seconds)]
            rows.append(row)
            print(row, flush=True)
    return rows


def large(entries: int, contender: str) -> None:
    """Fit one set, and print what that took."""
    kind = Kind(entries // 150, entries // 1000, entries, 6, 0.8, 1.0)
    train, test = observed.split(simulated(kind, 0), 0.05, generator=0)
    train = train.with_values(train.values.float())  # as cmfrec computes
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    options = {"cmfrec": dict(k=RANK), "package": {}}[contender]
    predict = CONTENDERS[contender][0](train, **options)
    seconds = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = dict(contender=contender, entries=entries, seconds=seconds)
    found |= dict(MiB=(peak - before) / 1024, rmse=error(predict, train, test))
    print(json.dumps(found))


def main() -> None:
    options = arguments(
        __doc__.splitlines()[0],
        threads=1,
        seeds=dict(type=int, default=2, help="draws of each kind"),
        large=dict(type=float, help="entries of one large set, instead"),
        only=dict(choices=list(CONTENDERS), help="one contender, with --large in this process"),
    )
    sys.path.append(str(Path(os.environ.get("LOP_RIVALS", FOLDER))))
    os.environ["TQDM_DISABLE"] = "1"  # of myFM, as
    warnings.filterwarnings("ignore", message="pkg_resources")
    if options.large and options.only:
        return large(int(options.large), options.only)
    modules = {"cmfrec": "cmfrec", "Surprise": "surprise", "myFM": "myfm", "pymanopt": "pymanopt"}
    names = ["package"]
    for name, module in modules.items():
        try:
            __import__(module)
            names.append(name)
        except ImportError:
            print(f"{name} is not installed: it was not compared.")
    if options.only:
        names = [options.only]
    if options.large:
        size = str(int(options.large))
        for name in ("cmfrec", "package"):
            words = [sys.executable, __file__, "--large", size, "--only", name]
            print(subprocess.run(words, check=True, text=True, capture_output=True).stdout)
        return
    rows = compared(names, QUICK if options.quick else KINDS, 1 if options.quick else options.seeds)
    show(
        ["kind", "contender", "RMSE", "seconds", "RMSE searched", "seconds"],
        [[r["kind"], r["contender"], *r["at_defaults"], *r["searched"]] for r in rows],
    )
    if not options.quick and len(names) == len(CONTENDERS):
        record("rivals", {"rank": RANK, "seeds": options.seeds, "rows": rows})


if __name__ == "__main__":
    main()
