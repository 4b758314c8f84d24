"""Ratings: MovieLens and its archive, simulated ratings, what means explain."""

import io
import re
import zipfile

import numpy as np
import pytest
import torch
from loopback import md5, serving

from lop_utils import ratings
from lop_utils.ratings import Ratings

F64 = {"dtype": torch.float64}

# MovieLens


def archive(member="ml-100k/u.data", text=b"1\t10\t5\t881250949\n2\t10\t3\t8\n1\t7\t1\t9\n"):
    """Return the bytes of a zip archive."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as z:
        z.writestr("ml-100k/README", bytes(2000))
        z.writestr(member, text)
    return file.getvalue()


GOOD = archive()


@pytest.fixture
def server(monkeypatch):
    with serving(monkeypatch) as server:
        monkeypatch.setattr(ratings, "_GROUPLENS", server.url)
        offer(monkeypatch, server, GOOD)
        yield server


def offer(monkeypatch, server, body, name="ml-100k"):
    """Let the server have this archive, and the table its checksum."""
    file, _, *rest = ratings._ARCHIVES[name]
    server.files[file] = body
    monkeypatch.setitem(ratings._ARCHIVES, name, (file, md5(body), *rest))


def load(folder, **options):
    return ratings.load_movielens("ml-100k", folder=folder, **options)


def is_right(found):
    return (
        found.rows.tolist() == [0, 1, 0]
        and found.cols.tolist() == [1, 1, 0]
        and found.values.tolist() == [5.0, 3.0, 1.0]
        and found.shape == (2, 2)
        and found.items.tolist() == [7, 10]
    )


def test_the_archive_is_downloaded_once(server, tmp_path):
    found = load(tmp_path / "new" / "folder")
    assert is_right(found)
    assert found.rows.dtype == found.cols.dtype == found.items.dtype == torch.int64
    assert found.values.dtype == torch.float64
    assert [p.name for p in (tmp_path / "new" / "folder").iterdir()] == ["ml-100k.zip"]
    server.mode = "404"
    assert is_right(load(tmp_path / "new" / "folder")) and len(server.requests) == 1


def test_it_is_kept_where_the_environment_says(server, tmp_path, monkeypatch):
    monkeypatch.setenv("LOP_DATA_DIR", str(tmp_path))
    assert is_right(load(None))
    assert (tmp_path / "ml-100k.zip").read_bytes() == GOOD


def test_a_download_that_breaks_off_is_gone_on_with(server, tmp_path):
    server.mode = "truncated"
    with pytest.raises(OSError, match=r"^ml-100k.zip: wanted .*IncompleteRead"):
        load(tmp_path)
    server.mode = "good"
    assert is_right(load(tmp_path)) and server.requests[1][1].startswith("bytes=")
    assert (tmp_path / "ml-100k.zip").read_bytes() == GOOD


def test_another_address_of_the_same_archive(server, tmp_path, monkeypatch):
    monkeypatch.setattr(ratings, "_GROUPLENS", "http://127.0.0.1:1/")
    assert is_right(load(tmp_path, url=server.url + "mirror/ml-100k.zip"))


def test_an_archive_without_the_ratings(server, tmp_path, monkeypatch):
    offer(monkeypatch, server, archive(member="ml-100k/u.item"))
    with pytest.raises(OSError, match=r"wanted ml-100k/u.data in a zip .*got KeyError: .There is"):
        load(tmp_path)
    offer(monkeypatch, server, GOOD)  # once the checksum is that of another one
    assert is_right(load(tmp_path))


@pytest.mark.parametrize(
    "body", [b"no archive", GOOD.replace(b"881250949", b"881250940", 1)], ids=["text", "crc"]
)
def test_no_zip_archive(server, tmp_path, monkeypatch, body):
    offer(monkeypatch, server, body)
    with pytest.raises(OSError, match=r"wanted ml-100k/u.data in a zip .*got BadZipFile"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("line", "got"),
    [
        (b"1\t2\t3", "1.t2.t3"),
        (b"1\t2\t3\t4\t5", "1.t2.t3.t4.t5"),
        (b"1::2::3::4", "1::2::3::4"),
        (b"1 2 3 4", "1 2 3 4"),
        (b"1\t2\t6\t4", "1.t2.t6.t4"),
        (b"1\t2\t3.5\t4", "1.t2.t3.5.t4"),
        (b"-1\t2\t3\t4", "-1.t2.t3.t4"),
        (b"1\tx\t3\t4", "1.tx.t3.t4"),
        (b"", ""),
        (b"\xff\t2\t3\t4", ".xff.t2.t3.t4"),
        (b"12345678901234567890\t2\t3\t4", "12345678901234567890.t2.t3.t4"),
    ],
)
def test_a_bad_line(server, tmp_path, monkeypatch, line, got):
    offer(monkeypatch, server, archive(text=b"1\t2\t3\t4\n" * 2 + line + b"\n1\t9\t3\t4\n"))
    wanted = re.escape(r"ml-100k/u.data, line 3: wanted b'user\titem\t1 to 5\ttime', got b'")
    with pytest.raises(ValueError, match=f"^{wanted}{got}'$"):
        load(tmp_path)


def test_no_line():
    with pytest.raises(
        ValueError, match=r"^x, line 1: wanted b'user::item::1 to 5::time', got b''"
    ):
        ratings._parse(b"", b"::", "x")


@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["unix", "windows"])
def test_the_larger_set_has_gaps_in_its_films(server, tmp_path, monkeypatch, end):
    lines = [b"1::3952::5::978300760", b"3::1::2::9", b"2::70::4::8", b"1::1::1::7"]
    body = archive("ml-1m/ratings.dat", end.join(lines) + end)
    offer(monkeypatch, server, body, name="ml-1m")
    found = ratings.load_movielens("ml-1m", folder=tmp_path)
    assert found.shape == (3, 3) and found.rows.tolist() == [0, 2, 1, 0]
    assert found.items.tolist() == [1, 70, 3952]
    assert found.items[found.cols].tolist() == [3952, 1, 70, 1]
    assert found.values.tolist() == [5, 2, 4, 1]


def test_an_unknown_set():
    with pytest.raises(ValueError, match=r"^name: wanted 'ml-100k' or 'ml-1m', got 'netflix'$"):
        ratings.load_movielens("netflix")


# Simulated ratings


def simulate(users=400, items=300, count=20_000, rank=3, noise=0.8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return ratings.simulate_ratings(
        users, items, count, rank=rank, noise=noise, generator=generator
    )


def test_simulated_ratings_are_ratings():
    found = simulate()
    assert found.shape == (400, 300) and found.items is None
    assert found.rows.dtype == found.cols.dtype == torch.int64
    assert found.values.dtype == torch.float64
    assert found.values.unique().tolist() == [1, 2, 3, 4, 5]
    pairs = found.rows * 300 + found.cols
    assert len(pairs) == 20_000 and (pairs.diff() > 0).all()  # row by row, so none twice
    assert found.rows.max() < 400 and found.cols.max() < 300
    # 20 000 ratings, but only 300 items of spread 0.5, a few of which have most ratings.
    assert found.values.mean().item() == pytest.approx(3.55, abs=0.2)
    assert found.values.std().item() == pytest.approx(1.07, abs=0.1)


def share_of_a_tenth(index, size):
    counts = index.bincount(minlength=size).sort(descending=True).values
    return counts[: size // 10].sum().item() / len(index)


def test_a_few_have_most_ratings(generator):
    found = simulate(1000, 600, 40_000)
    assert 0.36 < share_of_a_tenth(found.cols, 600) < 0.55
    assert 0.27 < share_of_a_tenth(found.rows, 1000) < 0.45
    even = torch.randperm(600_000, generator=generator)[:40_000]
    assert share_of_a_tenth(even % 600, 600) < 0.15
    assert share_of_a_tenth(even // 600, 1000) < 0.15


def test_popularity_and_activity_are_log_normal():
    # Sparse, so that hardly a pair is drawn that could have been drawn twice.
    found = simulate(4000, 4000, 300_000)
    for index, spread in ((found.rows, 1.0), (found.cols, 1.3)):
        # E of counts is known up to Poisson noise, whose variance is the mean: moments of the
        # logarithm follow from those of the counts, Var / mean^2 = exp(spread^2) - 1.
        counts = index.bincount(minlength=4000).double()
        middle = counts.log1p().median().expm1()
        assert (counts.mean() / middle).log().item() == pytest.approx(spread**2 / 2, rel=0.15)


def test_all_pairs_may_be_asked_for():
    found = simulate(7, 5, 35)
    assert (found.rows * 5 + found.cols).tolist() == list(range(35))


def test_same_seed_same_ratings():
    a, b, c = simulate(), simulate(), simulate(seed=1)
    assert all(torch.equal(x, y) for x, y in zip(a[:3], b[:3], strict=True))
    assert not torch.equal(a.rows, c.rows)


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    simulate()
    assert torch.equal(before, torch.get_rng_state())
    ratings.simulate_ratings(5, 5, 5, rank=1, noise=1.0)
    assert not torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("rank", [0, 1, 2, 5])
def test_the_taste_has_the_rank_asked_for(rank):
    M = simulate(600, 600, 360_000, rank=rank, noise=0.8).values.reshape(600, 600)
    M = M - M.mean(0) - M.mean(1, keepdim=True) + M.mean()
    s = torch.linalg.svdvals(M)
    # Noise and rounding end at 0.85 * 2 sqrt(600) = 42, clipping adds a little of its own; taste
    # weighs about 600 / 2 / sqrt(rank) in each of its directions, 134 at least.
    assert (s > 75).sum() == rank
    assert rank == 0 or s[:rank].norm().item() == pytest.approx(300, rel=0.2)


def test_the_noise_has_the_size_asked_for():
    quiet, loud = (simulate(300, 300, 90_000, rank=0, noise=noise) for noise in (0.0, 0.8))

    def unexplained(found):
        effects = ratings.fit_effects(found)
        return (found.values - effects.predict(found.rows, found.cols)).square().mean().item()

    assert unexplained(quiet) < 1 / 12 + 0.01
    assert unexplained(loud) == pytest.approx(0.8**2 + 1 / 12, rel=0.15)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"users": 0}, ValueError, "users: wanted users >= 1, got 0"),
        ({"items": 2.0}, TypeError, "items: wanted a whole number, got 2.0"),
        ({"count": 0}, ValueError, "count: wanted count >= 1, got 0"),
        ({"count": 36}, ValueError, "count: wanted at most users * items = 35, got 36"),
        ({"rank": -1}, ValueError, "rank: wanted rank >= 0, got -1"),
        ({"noise": -0.1}, ValueError, "noise: wanted noise >= 0, got -0.1"),
    ],
    ids=["users", "items", "none", "too-many", "rank", "noise"],
)
def test_simulate_refuses(change, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        simulate(**{"users": 7, "items": 5, "count": 20, **change})


# A part held out


def as_triples(part):
    return list(zip(*(x.tolist() for x in part[:3]), strict=True))


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.95])
def test_a_split_is_a_partition(fraction, generator):
    found = simulate(count=5000)._replace(items=torch.arange(300))
    train, test = ratings.split(found, fraction, generator=generator)
    assert len(test.values) == round(5000 * fraction)
    assert sorted(as_triples(train) + as_triples(test)) == as_triples(found)
    for part in (train, test):
        assert part.shape == found.shape and part.items is found.items
        assert as_triples(part) == sorted(as_triples(part))  # in the order they had


def test_all_ratings_are_held_out_alike(generator):
    found = simulate(count=200)
    pairs = found.rows * 300 + found.cols
    hits = torch.zeros(200)
    for _ in range(400):
        test = ratings.split(found, 0.3, generator=generator).test
        hits[torch.searchsorted(pairs, test.rows * 300 + test.cols)] += 1
    deviation = (400 * 0.3 * 0.7) ** 0.5
    assert (hits - 120).abs().max() < 4.5 * deviation
    assert hits.std().item() == pytest.approx(deviation, rel=0.2)


def test_a_split_is_seeded():
    found = simulate(count=200)
    a, b, c = (
        ratings.split(found, 0.3, generator=torch.Generator().manual_seed(seed)).test
        for seed in (0, 0, 1)
    )
    assert as_triples(a) == as_triples(b) != as_triples(c)


@pytest.mark.parametrize(
    ("fraction", "error", "message"),
    [
        (0.0, ValueError, "fraction: wanted some of 200 ratings in each part, got 0.0"),
        (1.0, ValueError, "fraction: wanted some of 200 ratings in each part, got 1.0"),
        (0.001, ValueError, "fraction: wanted some of 200 ratings in each part, got 0.001"),
        (-1, ValueError, "fraction: wanted some of 200 ratings in each part, got -1"),
        (float("nan"), ValueError, "fraction: wanted a finite number, got nan"),
        ("half", TypeError, "fraction: wanted a real number, got 'half'"),
    ],
)
def test_split_refuses(fraction, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        ratings.split(simulate(count=200), fraction)


# Effects


def by_dense_least_squares(found, shrinkage):
    """Solve the same problem as one dense system: slow, but plain."""
    users, items = found.shape
    mean = found.values.mean().item()
    lines, right = [], []
    for r, c, value in as_triples(found):
        line = np.zeros(users + items)
        line[r] = line[users + c] = 1
        lines.append(line)
        right.append(value - mean)
    lines += list(shrinkage**0.5 * np.eye(users + items))
    right += [0.0] * (users + items)
    b = np.linalg.lstsq(np.array(lines), np.array(right), rcond=None)[0]
    return mean, torch.tensor(b[:users]), torch.tensor(b[users:])


@pytest.mark.parametrize("shrinkage", [0.0, 1e-3, 1.0, 5.0, 100.0])
@pytest.mark.parametrize(("users", "items", "count"), [(30, 20, 250), (20, 30, 60), (3, 2, 1)])
def test_effects_are_those_of_dense_least_squares(users, items, count, shrinkage):
    found = simulate(users, items, count)
    effects = ratings.fit_effects(found, shrinkage=shrinkage)
    mean, b, c = by_dense_least_squares(found, shrinkage)
    assert effects.mean.item() == pytest.approx(mean)
    assert (effects.users - b).abs().max() < 1e-7 and (effects.items - c).abs().max() < 1e-7


def test_effects_one_after_the_other_are_not_the_minimum():
    # Means of users, then means of items of what is left: the usual shortcut.
    found = simulate(30, 20, 250)
    rest = found.values - found.values.mean()
    b = torch.zeros(30, **F64).index_add(0, found.rows, rest) / (found.rows.bincount() + 5)
    _, exact, _ = by_dense_least_squares(found, 5.0)
    assert (b - exact).abs().max() > 1e-2


def test_effects_are_recovered_where_there_is_nothing_else(generator):
    b, c = torch.randn(60, generator=generator, **F64), torch.randn(50, generator=generator, **F64)
    rows, cols, *_ = simulate(60, 50, 1500)
    assert len(rows.unique()) == 60 and len(cols.unique()) == 50
    found = Ratings(rows, cols, 3.5 + b[rows] + c[cols], (60, 50))
    effects = ratings.fit_effects(found, shrinkage=1e-9)
    everywhere = torch.cartesian_prod(torch.arange(60), torch.arange(50)).T
    M = effects.predict(*everywhere).reshape(60, 50)
    assert (M - (3.5 + b[:, None] + c)).abs().max() < 1e-6
    assert (effects.users - effects.users.mean() - (b - b.mean())).abs().max() < 1e-6
    # Shrinkage for noisy ratings costs something here, so the test can tell.
    M = ratings.fit_effects(found).predict(*everywhere).reshape(60, 50)
    assert (M - (3.5 + b[:, None] + c)).abs().max() > 0.1


def test_the_effects_of_simulated_ratings_have_their_spread():
    effects = ratings.fit_effects(simulate(1000, 1000, 200_000, rank=0, noise=0.8), shrinkage=1.0)
    assert effects.users.std().item() == pytest.approx(0.4, rel=0.1)
    assert effects.items.std().item() == pytest.approx(0.5, rel=0.1)


def test_the_default_shrinkage_predicts_best_what_is_simulated():
    train, test = ratings.split(
        simulate(900, 1600, 60_000), 0.1, generator=torch.Generator().manual_seed(0)
    )

    def error(shrinkage):
        effects = ratings.fit_effects(train, shrinkage=shrinkage)
        return (test.values - effects.predict(test.rows, test.cols)).square().mean().item()

    best = ratings.fit_effects(train).predict(test.rows, test.cols)
    default = (test.values - best).square().mean().item()
    assert default < min(error(0.1), error(50.0))
    assert default < 0.8 * test.values.var().item()


def test_who_was_never_seen_has_no_effect():
    rows, cols = torch.tensor([0, 0, 2]), torch.tensor([1, 3, 1])
    values = torch.tensor([5.0, 4.0, 1.0], **F64)
    for shrinkage in (0.0, 5.0):
        effects = ratings.fit_effects(Ratings(rows, cols, values, (4, 5)), shrinkage=shrinkage)
        assert (effects.users == 0).tolist() == [False, True, False, True]
        assert (effects.items == 0).tolist() == [True, False, True, False, True]
        unseen = effects.predict(torch.tensor([1]), torch.tensor([0]))
        assert torch.equal(unseen, effects.mean[None])


def test_ratings_are_left_alone():
    found = simulate(count=200)
    before = [x.clone() for x in found[:3]]
    ratings.fit_effects(found)
    ratings.split(found, 0.5)
    assert all(torch.equal(x, y) for x, y in zip(before, found[:3], strict=True))


def test_device_and_dtype_are_kept(place):
    found = simulate(30, 20, 250)
    kept = Ratings(
        found.rows.to(place.kind["device"]),
        found.cols.to(place.kind["device"]),
        found.values.to(**place.kind),
        found.shape,
    )
    effects = ratings.fit_effects(kept)
    train, test = ratings.split(kept, 0.2)
    predicted = effects.predict(kept.rows, kept.cols)
    for A in (*effects, predicted, train.values, test.values):
        assert A.dtype == place.kind["dtype"] and A.device.type == place.kind["device"]
    _, b, _ = by_dense_least_squares(found, 5.0)
    assert (effects.users.cpu() - b).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"rows": [0, 1]}, TypeError, "rows: wanted a tensor of int64, got list"),
        ({"cols": torch.zeros(2)}, TypeError, "cols: wanted a tensor of int64, got torch.float32"),
        ({"cols": torch.tensor([0, 3])}, ValueError, "cols: wanted 0 to 2, got 0 to 3"),
        ({"rows": torch.tensor([-1, 1])}, ValueError, "rows: wanted 0 to 1, got -1 to 1"),
        (
            {"rows": torch.tensor([0])},
            ValueError,
            "rows: wanted a vector with entries, as long as the others, got shape (1,) beside (2,)",
        ),
        ({"values": [1.0, 2.0]}, TypeError, "values: wanted a torch.Tensor, got list"),
        ({"values": torch.tensor([1, 2])}, TypeError, "values: wanted a floating-point matrix"),
        ({"values": torch.tensor([1.0, np.nan])}, ValueError, "values: wanted finite entries"),
        ({"values": torch.ones(1, 2)}, ValueError, "rows: wanted a vector with entries"),
    ],
)
@pytest.mark.parametrize("function", ["fit_effects", "split"])
def test_ratings_that_do_not_fit_together(function, change, error, message):
    index = torch.tensor([0, 1])
    wrong = Ratings(index, index, torch.ones(2), (2, 3))._replace(**change)
    with pytest.raises(error, match="^" + re.escape(message)):
        ratings.fit_effects(wrong) if function == "fit_effects" else ratings.split(wrong, 0.5)


def test_fit_effects_and_predict_refuse():
    found = simulate(3, 2, 6)
    with pytest.raises(ValueError, match=r"^shrinkage: wanted shrinkage >= 0, got -1"):
        ratings.fit_effects(found, shrinkage=-1)
    effects, index = ratings.fit_effects(found), torch.tensor([0, 2])
    with pytest.raises(ValueError, match=r"^cols: wanted 0 to 1, got 0 to 2"):
        effects.predict(index, index)
    with pytest.raises(ValueError, match=r"^cols: wanted a vector .* got shape \(1,\) beside"):
        effects.predict(index, index[:1])
    for rows, cols in (([0], index), (index, [0, 1])):
        with pytest.raises(TypeError, match="s: wanted a tensor of int64, got list"):
            effects.predict(rows, cols)
