"""Ratings: MovieLens and its archive, simulated ratings, what means explain."""

import io
import re
import zipfile

import numpy as np
import pytest
import torch
from columns import KINDS
from loopback import md5, serving

from lop_utils import data, observed
from lop_utils.book import ratings
from lop_utils.observed import ObservedEntries, split

F64 = {"dtype": torch.float64}

# MovieLens

SETS = {
    # In the larger set the numbers of films have gaps, and lines may end as on Windows.
    "ml-100k": b"1\t70\t5\t881250949\n2\t70\t3\t8\n1\t7\t1\t9\n",
    "ml-1m": b"1::3952::5::978300760\r\n2::3952::3::9\r\n1::1::1::7\r\n",
}


@pytest.fixture
def server(monkeypatch):
    """Offer archives, and let the table have their checksums."""
    with serving(monkeypatch) as server:
        monkeypatch.setattr(data, "_GROUPLENS", server.url)
        for name, text in SETS.items():
            _, member, separator = data._ARCHIVES[name]
            file = io.BytesIO()
            with zipfile.ZipFile(file, "w") as archive:
                archive.writestr(f"{name}/README", bytes(2000))
                archive.writestr(member, text)
            server.files[f"{name}.zip"] = body = file.getvalue()
            monkeypatch.setitem(data._ARCHIVES, name, (md5(body), member, separator))
        yield server


@pytest.mark.parametrize("name", SETS)
def test_the_archive_is_downloaded_once_and_read(name, server, tmp_path, monkeypatch):
    monkeypatch.setenv("LOP_DATA_DIR", str(tmp_path / "environment"))
    for folder in (tmp_path / "argument", None):
        for mode in ("good", "404"):
            server.mode = mode
            found = data.load_movielens(name, folder=folder)
            assert found.shape == (2, 2) and found.values.dtype == torch.float64
            assert found.rows.tolist() == [0, 0, 1] and found.cols.tolist() == [0, 1, 1]
            assert found.values.tolist() == [1.0, 5.0, 3.0]
    for folder in ("argument", "environment"):
        assert (tmp_path / folder / f"{name}.zip").read_bytes() == server.files[f"{name}.zip"]
    assert server.requests == [f"/{name}.zip"] * 2


def test_another_address_and_another_file(server, tmp_path):
    data.load_movielens("ml-1m", folder=tmp_path, url=server.url + "mirror/ml-1m.zip")
    assert server.requests == ["/mirror/ml-1m.zip"]
    server.mode = "page"
    with pytest.raises(OSError, match=r"^ml-100k.zip: wanted the file with MD5"):
        data.load_movielens("ml-100k", folder=tmp_path)
    with pytest.raises(ValueError, match=r"^name: wanted one of ml-100k, ml-1m, got 'netflix'$"):
        data.load_movielens("netflix")


# Simulated ratings


def simulate(users=400, items=300, count=20_000, rank=3, noise=0.8, seed=0):
    return ratings.simulate_ratings(users, items, count, rank=rank, noise=noise, generator=seed)


def test_simulated_ratings_are_ratings():
    found = simulate()
    assert found.shape == (400, 300) and len(found) == 20_000
    assert found.values.dtype == torch.float64
    assert found.values.unique().tolist() == [1, 2, 3, 4, 5]
    # 20 000 ratings, but only 300 items of spread 0.5, a few of which have most ratings.
    assert found.values.mean().item() == pytest.approx(3.55, abs=0.2)
    assert found.values.std().item() == pytest.approx(1.07, abs=0.1)
    everything = simulate(7, 5, 35)
    assert (everything.rows * 5 + everything.cols).tolist() == list(range(35))


def share_of_a_tenth(index, size):
    counts = index.bincount(minlength=size).sort(descending=True).values
    return counts[: size // 10].sum().item() / len(index)


def test_a_few_have_most_ratings(generator):
    found = simulate(1000, 600, 40_000)
    assert 0.36 < share_of_a_tenth(found.cols, 600) < 0.55
    assert 0.27 < share_of_a_tenth(found.rows, 1000) < 0.45
    even = torch.randperm(600_000, generator=generator)[:40_000]
    assert share_of_a_tenth(even % 600, 600) < 0.15


def test_ratings_follow_their_generator():
    before = torch.get_rng_state()
    a, b, c = simulate(), simulate(), simulate(seed=1)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(a.rows, b.rows) and torch.equal(a.values, b.values)
    assert not torch.equal(a.rows, c.rows)
    simulate(5, 5, 5, seed=None)
    assert not torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("rank", [0, 1, 5])
def test_the_taste_has_the_rank_asked_for(rank):
    M = simulate(600, 600, 360_000, rank=rank, noise=0.8).values.reshape(600, 600)
    M = M - M.mean(0) - M.mean(1, keepdim=True) + M.mean()
    s = torch.linalg.svdvals(M)
    # Noise and rounding end at 0.85 * 2 sqrt(600) = 42, clipping adds a little of its own; taste
    # weighs about 600 / 2 / sqrt(rank) in each of its directions, 134 at least.
    assert (s > 75).sum() == rank
    assert rank == 0 or s[:rank].norm().item() == pytest.approx(300, rel=0.2)


def test_noise_and_effects_have_the_size_asked_for():
    for noise in (0.0, 0.8):
        found = simulate(700, 700, 490_000, rank=0, noise=noise)
        effects = observed.fit_effects(found, shrinkage=1.0)
        rest = (found.values - effects.predict(found.rows, found.cols)).square().mean().item()
        assert rest == pytest.approx(noise**2 + 1 / 12, rel=0.15)  # of rounding
        assert effects.users.std().item() == pytest.approx(0.4, rel=0.1)
        assert effects.items.std().item() == pytest.approx(0.5, rel=0.15)


# Effects


def by_dense_least_squares(found, shrinkage):
    """Solve the same problem as one dense system: slow, but plain."""
    n, (users, items), mean = len(found), found.shape, found.values.mean().item()
    A = np.zeros((n, users + items))
    A[range(n), found.rows] = A[range(n), users + found.cols] = 1
    A = np.vstack([A, shrinkage**0.5 * np.eye(users + items)])
    right = np.append(found.values - mean, np.zeros(users + items))
    b = torch.tensor(np.linalg.lstsq(A, right, rcond=None)[0])
    return mean, b[:users], b[users:]


@pytest.mark.parametrize("shrinkage", [0.0, 1e-3, 5.0, 100.0])
@pytest.mark.parametrize(("users", "items", "count"), [(30, 20, 250), (20, 30, 60), (3, 2, 1)])
def test_effects_are_those_of_dense_least_squares(users, items, count, shrinkage):
    found = simulate(users, items, count)
    values = found.values.clone()
    effects = observed.fit_effects(found, shrinkage=shrinkage)
    mean, b, c = by_dense_least_squares(found, shrinkage)
    assert effects.mean.item() == pytest.approx(mean)
    assert (effects.users - b).abs().max() < 1e-7 and (effects.items - c).abs().max() < 1e-7
    assert torch.equal(found.values, values)


def test_effects_are_recovered_where_there_is_nothing_else(generator):
    b, c = torch.randn(60, generator=generator, **F64), torch.randn(50, generator=generator, **F64)
    seen = simulate(60, 50, 1500)
    assert len(seen.rows.unique()) == 60 and len(seen.cols.unique()) == 50
    effects = observed.fit_effects(seen.with_values(3.5 + b[seen.rows] + c[seen.cols]), shrinkage=0)
    M = effects.predict(*torch.cartesian_prod(torch.arange(60), torch.arange(50)).T)
    assert (M.reshape(60, 50) - (3.5 + b[:, None] + c)).abs().max() < 1e-6
    assert (effects.users - effects.users.mean() - (b - b.mean())).abs().max() < 1e-6


def test_the_default_shrinkage_predicts_best_what_is_simulated():
    train, test = split(simulate(600, 1000, 30_000), 0.1, generator=0)

    def error(**shrinkage):
        effects = observed.fit_effects(train, **shrinkage)
        return (test.values - effects.predict(test.rows, test.cols)).square().mean().item()

    default = error()
    assert default < min(error(shrinkage=0.1), error(shrinkage=50.0))
    assert default < 0.8 * test.values.var().item()


@pytest.mark.parametrize("shrinkage", [0.0, 5.0])
def test_who_was_never_seen_has_no_effect(shrinkage):
    seen = ObservedEntries([0, 0, 2], [1, 3, 1], [5.0, 4.0, 1.0], (4, 5))
    effects = observed.fit_effects(seen, shrinkage=shrinkage)
    assert (effects.users == 0).tolist() == [False, True, False, True]
    assert (effects.items == 0).tolist() == [True, False, True, False, True]
    assert torch.equal(effects.predict([1], [0]), effects.mean[None])
    assert repr(effects) == "Effects(4 users, 5 items, mean 3.33)"


@pytest.mark.parametrize("kind", KINDS)
def test_places_of_any_kind(kind):
    found, of = simulate(30, 20, 250), KINDS[kind]
    effects = observed.fit_effects(found)
    predicted = effects.predict(of(found.rows), of(found.cols))
    assert torch.equal(predicted, effects.predict(found.rows, found.cols))


def test_device_and_dtype_are_kept(place):
    found = simulate(30, 20, 250)
    effects = observed.fit_effects(found.with_values(found.values.to(**place.kind)))
    predicted = effects.predict(found.rows, found.cols)
    for A in (effects.mean, effects.users, effects.items, predicted):
        assert A.dtype == place.kind["dtype"] and A.device.type == place.kind["device"]
    assert (effects.users.cpu() - by_dense_least_squares(found, 5.0)[1]).abs().max() < 1e-5


SEEN = ObservedEntries([0, 1], [0, 1], [1.0, 2.0], (2, 2))
predict = observed.fit_effects(SEEN).predict
SMALL = {"users": 7, "items": 5, "count": 20}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: simulate(**SMALL | {"users": 0}), ValueError, "users: wanted users >= 1, got 0"),
        (lambda: simulate(**SMALL | {"items": 2.0}), TypeError, "items: wanted a whole number, go"),
        (lambda: simulate(**SMALL | {"count": 0}), ValueError, "count: wanted count >= 1, got 0"),
        (lambda: simulate(**SMALL | {"count": 36}), ValueError, "count: wanted at most users * it"),
        (lambda: simulate(**SMALL | {"rank": -1}), ValueError, "rank: wanted rank >= 0, got -1"),
        (lambda: simulate(**SMALL | {"noise": -1}), ValueError, "noise: wanted noise >= 0, got -1"),
        (lambda: simulate(seed=1.5), TypeError, "generator: wanted a torch.Generator or a seed"),
        (lambda: observed.fit_effects(SEEN, shrinkage=-1), ValueError, "shrinkage: wanted shrin"),
        (lambda: observed.fit_effects((1, 2)), TypeError, "seen: wanted ObservedEntries, got tu"),
        (lambda: predict([0, 1], [0, 2]), ValueError, "cols: wanted 0 to 1, got 0 to 2"),
        (lambda: predict([0, 1], [0]), ValueError, "cols: wanted 2 as rows, got 1"),
        (lambda: predict(["u1"], [0]), TypeError, "rows: wanted a tensor of numbers, got list"),
        (lambda: predict([0], [0.0]), TypeError, "cols: wanted whole numbers, got torch.float64"),
    ],
)
def test_what_is_refused_is_named(call, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        call()
