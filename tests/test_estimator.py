"""The estimator: ratings in any form in, the same model out, honest errors, and a file of it."""

import pickle
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.base import RegressorMixin, clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks
from sklearn.utils.validation import validate_data

from lop_utils import _estimating, completion, observed
from lop_utils.estimator import DeepMatrixCompletion
from lop_utils.observed import ObservedEntries

pd = pytest.importorskip("pandas", reason="the extra frames is not installed")
pytest.importorskip("safetensors", reason="the extra frames is not installed")

USERS, ITEMS = 40, 30
GOOD = {"rank": 2, "eps": 0.1, "lam": 0.02, "steps": 200, "clip": (0, 9)}


def table():
    """Draw ratings of rank 2, some of them 0, at half of all places; each side occurs."""
    g = torch.Generator().manual_seed(0)
    P, Q, noise = (torch.randn(*s, generator=g) for s in ((USERS, 2), (2, ITEMS), (USERS, ITEMS)))
    ratings = (4 + 0.8 * P @ Q + 0.2 * noise).round().clamp(0, 9).double().numpy()
    rows, cols = (torch.rand(USERS, ITEMS, generator=g) < 0.5).nonzero().T.numpy()
    return rows, cols, ratings[rows, cols]


ROWS, COLS, VALUES = table()
FRAME = pd.DataFrame({"time": 0, "rating": VALUES, "item": COLS, "user": ROWS})
PAIRS = np.column_stack([ROWS, COLS])
DENSE = np.full((USERS, ITEMS), np.nan)
DENSE[ROWS, COLS] = VALUES
NAMES = np.array([f"é{i:02d}" for i in range(USERS)], object)  # in the order of the numbers


@pytest.fixture(scope="module")
def model():
    return DeepMatrixCompletion(**GOOD).fit(FRAME)


def same(one, other):
    """Whether two models hold the same numbers, digit for digit."""
    pairs = zip(one.fitted_, other.fitted_, strict=True)
    assert all(np.array_equal(A, B) and A.dtype == B.dtype for A, B in pairs)
    for name in ("rows", "cols", "values"):
        assert torch.equal(getattr(one.seen_, name), getattr(other.seen_, name))
    for name in ("noise_", "held_out_rmse_", "effects_rmse_", "n_held_out_", "n_iter_"):
        assert getattr(one, name) == getattr(other, name)
    return one.stopped_ == other.stopped_


class Polars:
    """What polars has of a data frame: names of columns, and columns by name."""

    def __init__(self, frame):
        self.frame, self.columns = frame, list(frame)

    def __getitem__(self, name):
        return self.frame[name].to_numpy().tolist()


class Arrow(Polars):
    """What pyarrow has: the columns themselves, and their names apart."""

    def __init__(self, frame):
        super().__init__(frame)
        self.columns, self.column_names = [frame[name].to_numpy() for name in frame], list(frame)


def shuffled(*arrays):
    order = np.random.default_rng(0).permutation(len(ROWS))
    return [array[order] for array in arrays]


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


FORMS = {
    "filtered frame": lambda: (pd.concat([FRAME, FRAME.assign(user=99)]).query("user < 99"),),
    "shuffled frame": lambda: (FRAME.sample(frac=1, random_state=0),),
    "words": lambda: (FRAME.assign(user=NAMES[ROWS]),),
    "categories": lambda: (FRAME.assign(user=pd.Categorical(NAMES[ROWS])),),
    "numbers with gaps": lambda: (FRAME.assign(user=10**12 * ROWS - 7, item=COLS.astype(float)),),
    "nullable numbers": lambda: (FRAME.astype({"user": "Int64", "rating": "Float64"}),),
    "frame of polars": lambda: (Polars(FRAME),),
    "table of pyarrow": lambda: (Arrow(FRAME),),
    "an odd name": lambda: (FRAME.assign(column_names=1),),
    "frame and y": lambda: (FRAME[["user", "item"]], FRAME["rating"]),
    "pairs": lambda: (PAIRS, VALUES),
    "pairs of words": lambda: (list(zip(NAMES[ROWS], COLS.tolist(), strict=True)), VALUES.tolist()),
    "tensors": lambda: (torch.tensor(PAIRS), torch.tensor(VALUES)),
    "read-only": lambda: (read_only(PAIRS), read_only(VALUES)),
    "negative strides": lambda: (PAIRS[::-1], VALUES[::-1]),
    "order of bytes": lambda: (PAIRS.astype(">i4"), VALUES.astype(">f8")),
    "shuffled pairs": lambda: shuffled(PAIRS, VALUES),
    "csr": lambda: (sparse.csr_array((VALUES, (ROWS, COLS)), shape=DENSE.shape),),
    "coo": lambda: (sparse.coo_matrix((VALUES, (ROWS, COLS)), shape=DENSE.shape),),
    "dense": lambda: (DENSE,),
    "columns first": lambda: (np.asfortranarray(DENSE),),
    "nested lists": lambda: (DENSE.tolist(),),
    "masked": lambda: (np.ma.masked_array(np.nan_to_num(DENSE).astype(int), np.isnan(DENSE)),),
    "tensor": lambda: (torch.tensor(DENSE, requires_grad=True),),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_model(form, model):
    assert same(DeepMatrixCompletion(**GOOD).fit(*FORMS[form]()), model)


def test_other_columns_and_single_precision(model):
    names = {"user": "who", "item": 3, "rating": "stars"}
    frame = FRAME.rename(columns=names).astype({"stars": "float32"})
    other = DeepMatrixCompletion(**GOOD, **names).fit(frame)
    assert {part.dtype for part in other.fitted_} == {np.dtype("float32")}
    assert other.predict(frame).dtype == other.fill().dtype == np.float32
    assert np.abs(other.predict(frame) - model.predict(FRAME)).max() < 1e-2


# What is fitted


def test_what_is_held_out_was_out_before_effects_were_fitted(model):
    seen = ObservedEntries(ROWS, COLS, VALUES, DENSE.shape)
    seed = np.random.RandomState(0).randint(2**31 - 1)

    def fitted(part, **more):
        effects = observed.fit_effects(part)
        rest = part.with_values(part.values - effects.predict(part.rows, part.cols))
        options = {name: GOOD[name] for name in ("eps", "lam", "steps")} | more
        result = completion.complete(rest, 2, generator=seed, progress=False, **options)
        return result, lambda *at: (effects.predict(*at) + result.predict(*at)).clamp(0, 9).numpy()

    train, test = observed.split(seen, 0.1, generator=seed)
    first, expected = fitted(train)
    gap = expected(test.rows, test.cols) - test.values.numpy()
    assert model.held_out_rmse_ == pytest.approx(np.sqrt(np.mean(gap**2)), rel=1e-12)
    assert model.n_held_out_ == len(test) and model.stopped_ == first.stopped
    assert model.noise_ == first.error
    _, expected = fitted(seen, steps=first.best.t, held_out=0.0, finish=False)
    assert np.abs(model.predict(PAIRS) - expected(ROWS, COLS)).max() < 1e-12
    assert model.n_iter_ == first.best.t > 0
    assert model.held_out_rmse_ < 0.7 < 1.0 < model.effects_rmse_
    alone = DeepMatrixCompletion(**GOOD, refit=False).fit(FRAME)
    assert alone.held_out_rmse_ == model.held_out_rmse_ and alone.n_iter_ == first.steps
    assert np.abs(alone.predict(PAIRS) - model.predict(PAIRS)).max() > 1e-3


def test_a_matrix_of_low_rank_comes_back():
    g = np.random.default_rng(0)
    Phi = g.standard_normal((50, 2)) @ g.standard_normal((2, 40))
    X = np.where(g.random(Phi.shape) < 0.5, Phi, np.nan)
    found = DeepMatrixCompletion(3, effects=False, steps=2000, patience=1500, L=3).fit(X)
    assert np.abs(found.fill() - Phi).max() < 1e-3 and found.held_out_rmse_ < 1e-3
    known = ~np.isnan(X)
    assert np.array_equal(found.fill()[known], X[known])
    assert found.predict([(99, 0)]) == 0  # nothing was subtracted
    assert f", of zeros alone {found.effects_rmse_:.4g}" in repr(found)
    # Further rows, of which less is known than a fit would need.
    more = g.standard_normal((5, 2)) @ np.linalg.svd(Phi)[2][:2]
    given = more.copy()
    given[:, 8:] = np.nan
    found.fold_in(given)
    assert found.users_.tolist() == list(range(55))
    assert np.abs(found.fill()[50:] - more).max() < 5e-3


def test_random_state_and_no_effects_and_equal_ratings():
    one, two = (DeepMatrixCompletion(**GOOD, random_state=seed).fit(FRAME) for seed in (1, 2))
    assert one.held_out_rmse_ != two.held_out_rmse_
    equal = DeepMatrixCompletion(1).fit(np.where(np.isnan(DENSE), np.nan, 4.0))
    assert np.array_equal(equal.fill(), np.full(DENSE.shape, 4.0)) and equal.held_out_rmse_ == 0
    unjudged = DeepMatrixCompletion(**GOOD, held_out=0).fit(FRAME)
    assert np.isnan(unjudged.held_out_rmse_) and unjudged.n_held_out_ == 0
    assert repr(unjudged).endswith("\nnothing was held out")


@pytest.mark.parametrize(("every", "rank"), [(1, 9), (4, 2), (12, 1)])
def test_a_rank_that_the_ratings_determine(every, rank):
    seen = ObservedEntries(ROWS, COLS, VALUES, DENSE.shape).select(torch.arange(0, 612, every))
    occur = sum(len(side.unique()) for side in (seen.rows, seen.cols))
    assert _estimating.rank_for(seen) == rank
    assert (rank + 1) * (occur - rank - 1) > 0.9 * len(seen)
    if rank > 1:
        assert rank * (occur - rank) <= 0.9 * len(seen)
        DeepMatrixCompletion(steps=5, held_out=0).fit(FRAME[::every])  # which is not refused


# What is asked of it


def test_ids_that_are_not_known(model):
    mean, users, items = model.fitted_[:3]
    expected = np.array([mean + users[3], mean + items[4], mean])
    assert model.predict([(3, -1), (10**6, 4), (-5, 77)]) == pytest.approx(expected, rel=1e-14)
    inside = model.predict([(3, 4)])[0]
    assert inside == pytest.approx(model.fill()[3, 4]) or (DENSE[3, 4] == model.fill()[3, 4])
    assert inside != pytest.approx(mean + users[3] + items[4], abs=1e-3)


@pytest.mark.parametrize("exclude", [True, False])
@pytest.mark.parametrize("user", [7, 999])
def test_top_n(model, user, exclude):
    whole = model.predict([(user, i) for i in range(ITEMS)])
    if exclude and user == 7:
        whole[COLS[ROWS == 7]] = -np.inf
    items, ratings = model.top_n(user, 5, exclude_seen=exclude)
    assert items.tolist() == np.argsort(-whole, kind="stable")[:5].tolist()
    assert ratings == pytest.approx(whole[items], rel=1e-14)
    left = len(model.top_n(user, 1000, exclude_seen=exclude)[0])
    assert left == ITEMS - (exclude and (ROWS == user).sum())


def test_clipping_hides_no_order():
    values = np.clip(VALUES, 0, 4)  # most of the best are clipped to 4
    model = DeepMatrixCompletion(**GOOD | {"clip": (0, 4)}).fit(PAIRS, values)
    items, ratings = model.top_n(7, ITEMS, exclude_seen=False)
    free = model.fitted_.ratings(np.full(ITEMS, 7), np.arange(ITEMS))
    assert (ratings == 4).sum() > 1 and free.max() > 4
    assert items.tolist() == np.argsort(-free).tolist()
    assert model.predict(PAIRS).max() == 4 and model.fill().max() == 4


def test_folding_in_what_is_known_finds_it_again(model):
    users = NAMES[ROWS]
    named = DeepMatrixCompletion(**GOOD).fit(FRAME.assign(user=users))
    mine = ROWS == 5
    new = FRAME[mine].assign(user="é04b")  # between others
    before, others = named.predict(FRAME.assign(user=users)), named.fitted_
    assert named.fold_in(new) is named
    assert np.array_equal(named.predict(FRAME.assign(user=users)), before)
    assert named.users_.tolist() == sorted([*NAMES, "é04b"])
    assert len(named.seen_) == len(ROWS) + mine.sum()
    # With the items fixed, the effect is that of fit; the factors are those of ridge regression.
    assert named.fitted_.user_effects[5] == pytest.approx(others.user_effects[5], abs=1e-8)
    P, Q = others.user_factors, others.item_factors[COLS[mine]]
    rest = VALUES[mine] - others.mean - others.item_effects[COLS[mine]] - others.user_effects[5]
    S = P.T @ P / len(P)
    p = S @ Q.T @ np.linalg.solve(Q @ S @ Q.T + named.noise_**2 * np.eye(mine.sum()), rest)
    assert named.fitted_.user_factors[5] == pytest.approx(p, rel=1e-6)
    assert named.top_n("é04b", 99)[0].tolist() == named.top_n("é05", 99)[0].tolist()


def test_folding_in_is_nearly_as_good_as_a_fit_to_all():
    old, new = FRAME[ROWS >= 10], FRAME[ROWS < 10].sample(frac=1, random_state=0)
    model = DeepMatrixCompletion(**GOOD).fit(old)
    known = model.users_.tolist()

    def error(model):
        return np.sqrt(np.mean((new["rating"][::2] - model.predict(new[::2])) ** 2))

    means, whole = error(model), DeepMatrixCompletion(**GOOD).fit(pd.concat([old, new[1::2]]))
    model.fold_in(new[1::2])
    assert error(model) < 1.1 * error(whole) < 0.6 * means
    assert model.users_.tolist() == [*range(10), *known]
    # More ratings of one who is known join those that were there.
    at_once = DeepMatrixCompletion(**GOOD).fit(old).fold_in(new)
    model.fold_in(new[["user", "item"]][::2], new["rating"][::2])
    assert same(model, at_once)


# Where scikit-learn uses it


@pytest.mark.parametrize("X", [PAIRS, FRAME[["user", "item"]]], ids=["pairs", "frame"])
def test_cross_validation_pipelines_and_searches(X):
    fast = DeepMatrixCompletion(**GOOD, held_out=0, refit=False)
    cv = KFold(3, shuffle=True, random_state=0)
    scores = cross_val_score(fast, X, VALUES, cv=cv)
    errors = -cross_val_score(fast, X, VALUES, cv=cv, scoring="neg_root_mean_squared_error")
    assert scores.min() > 0.6 and errors.max() < 1.0
    spread = [VALUES[test].var() for _, test in cv.split(X)]
    assert scores == pytest.approx(1 - errors**2 / spread)
    chain = make_pipeline(FunctionTransformer(), clone(fast))
    assert cross_val_score(chain, X, VALUES, cv=cv) == pytest.approx(scores)
    grid = {"deepmatrixcompletion__steps": np.array([1, GOOD["steps"]])}
    search = GridSearchCV(chain, grid, cv=cv, n_jobs=1).fit(X, VALUES)
    assert search.best_params_["deepmatrixcompletion__steps"] == GOOD["steps"]
    assert search.best_score_ == pytest.approx(scores.mean())
    assert search.predict(X).shape == VALUES.shape


def test_a_frame_alone_can_be_cross_validated(model):
    fast = DeepMatrixCompletion(**GOOD, held_out=0, refit=False)
    alone = cross_val_score(fast, FRAME, cv=KFold(3))
    assert alone == pytest.approx(cross_val_score(fast, PAIRS, VALUES, cv=KFold(3)))
    weights = np.r_[1.0, np.zeros(len(VALUES) - 2), 1.0]
    ends = model.score(PAIRS[[0, -1]], VALUES[[0, -1]])
    assert model.score(FRAME, sample_weight=weights) == pytest.approx(ends)


class Binned(DeepMatrixCompletion):
    """Takes what the checks of scikit-learn hand over: its features say who rates what."""

    def __init__(self, rank=1, steps=20, held_out=0.0, random_state=0):
        super().__init__(rank, steps=steps, held_out=held_out, random_state=random_state)
        self.duplicates = "mean"

    def fit(self, X, y):
        X, y = validate_data(self, X, y, y_numeric=True)
        return super().fit(self._pairs(X), y)

    def predict(self, X):
        return super().predict(self._pairs(validate_data(self, X, reset=False)))

    score = RegressorMixin.score

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = tags.input_tags.allow_nan = tags.input_tags.string = False
        return tags

    @staticmethod
    def _pairs(X):
        return np.floor(np.stack([7 * X[:, 0], 5 * X.sum(axis=1)], axis=1)).astype(int) % 3


REAL = "its X has other than two columns, or real numbers in them, which are no ids"
# The checks that hand over tables of features.
NOT_FOR_IDS = """
check_fit_score_takes_y check_estimators_overwrite_params check_dont_overwrite_parameters
check_estimators_fit_returns_self check_readonly_memmap_input check_n_features_in_after_fitting
check_positive_only_tag_during_fit check_estimators_dtypes check_complex_data check_dtype_object
check_estimators_empty_data_messages check_pipeline_consistency check_estimator_sparse_tag
check_estimators_pickle check_f_contiguous_array_estimator check_regressors_train
check_regressor_data_not_an_array check_regressors_no_decision_function check_supervised_y_2d
check_regressors_int check_methods_sample_order_invariance check_methods_subset_invariance
check_fit2d_1sample check_fit2d_1feature check_dict_unchanged check_fit_idempotent
check_fit_check_is_fitted check_n_features_in check_fit2d_predict1d
""".split()


@pytest.mark.skipif(
    not hasattr(estimator_checks, "estimator_checks_generator"), reason="before scikit-learn 1.6"
)
@pytest.mark.parametrize(
    ("estimator", "failing"),
    [(DeepMatrixCompletion(), dict.fromkeys(NOT_FOR_IDS, REAL)), (Binned(), {})],
    ids=["as it is", "with features made ids"],
)
def test_what_scikit_learn_checks(estimator, failing):
    found = estimator_checks.check_estimator(
        estimator, expected_failed_checks=failing, on_fail=None, on_skip=None
    )
    by_status = {}
    for each in found:
        by_status.setdefault(each["status"], {})[each["check_name"]] = each["exception"]
    assert by_status.get("failed", {}) == {}
    assert by_status.get("xfail", {}).keys() == failing.keys()


def test_clone_and_repr(model):
    twin = clone(model)
    assert twin.get_params() == model.get_params() and not hasattr(twin, "fitted_")
    told = "DeepMatrixCompletion(clip=(0, 9), eps=0.1, lam=0.02, rank=2, steps=200)"
    assert repr(twin) == told
    first, second, third = repr(model).splitlines()
    assert first == told
    assert (
        second
        == f"40 users x 30 items, 612 ratings; width 4, {model.n_iter_} steps, stopped by steps"
    )
    errors = f"RMSE {model.held_out_rmse_:.4g} on 61 ratings held out, of effects alone"
    assert third == f"{errors} {model.effects_rmse_:.4g}"
    assert same(pickle.loads(pickle.dumps(model)), model)
    assert same(twin.set_params(rank=3).set_params(rank=np.int64(2)).fit(FRAME), model)


# The file


ODD = ["", "a", "a\0", "\xe4", "a\u0308", "\ud800", "0", "00"]  # what gets lost on the way
IDS = {
    "words": lambda n: np.array([*ODD, *(f"n{i}" for i in range(n))][:n], object),
    "numbers": lambda n: np.array([-(2**63), 2**63 - 1, *range(n)][:n]),
}


@pytest.mark.parametrize("kind", IDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_saved_and_loaded(kind, dtype, tmp_path):
    users, items = IDS[kind](USERS)[ROWS], IDS[kind](ITEMS)[COLS]
    frame = pd.DataFrame({"user": users, "item": items, "rating": VALUES.astype(dtype)})
    settings = GOOD | {"rank": np.int64(2), "lam": np.float64(0.02), "options": {"gamma": 3.0}}
    model = DeepMatrixCompletion(**settings).fit(frame)
    assert len(model.users_) == USERS and len(model.items_) == ITEMS
    model.save(tmp_path / "model")
    again = DeepMatrixCompletion.load(str(tmp_path / "model"))
    assert same(again, model) and again.get_params() == model.get_params()
    assert again.users_.tolist() == model.users_.tolist()
    assert repr(again).splitlines()[1:] == repr(model).splitlines()[1:]
    assert again.users_.dtype == model.users_.dtype
    assert np.array_equal(again.predict(frame), model.predict(frame))
    assert again.top_n(users[0])[0].tolist() == model.top_n(users[0])[0].tolist()
    more = (
        frame[ROWS == 3].assign(user=frame.user.iloc[-1]).query("item not in @items[@ROWS == 39]")
    )
    assert same(again.fold_in(more), model.fold_in(more))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_damaged_file_is_refused(model, tmp_path):
    file, whole = tmp_path / "model", tmp_path / "whole"
    model.save(whole)
    good = whole.read_bytes()
    bad = [good[: len(good) // 2], b"", b"PK" + good[2:]]
    for place in np.linspace(9, len(good) - 1, 25).astype(int):
        bad.append(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
    for content in bad:
        file.write_bytes(content)
        with pytest.raises(ValueError, match=re.escape(f"file: wanted a saved model, got {file}")):
            DeepMatrixCompletion.load(file)
    from safetensors.numpy import save_file

    save_file({"W": np.ones(3)}, file)
    with pytest.raises(ValueError, match="its format is None"):
        DeepMatrixCompletion.load(file)
    with pytest.raises(FileNotFoundError):
        DeepMatrixCompletion.load(tmp_path / "none")


def test_what_cannot_be_saved_leaves_the_file_as_it_was(model, tmp_path, monkeypatch):
    file = tmp_path / "model"
    model.save(file)
    before = file.read_bytes()
    other = clone(model).set_params(random_state=np.random.RandomState(0), steps=2).fit(FRAME)
    with pytest.raises(TypeError, match="save: wanted parameters of numbers and words, got Rand"):
        other.save(file)
    with pytest.raises(ValueError, match="file: wanted the name of a file"):
        model.save("")
    assert file.read_bytes() == before and len(list(tmp_path.iterdir())) == 1
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    for call in (model.save, model.load):
        with pytest.raises(ModuleNotFoundError, match=re.escape("pip install 'lop-utils[frames]'")):
            call(file)


def test_without_the_extra_everything_else_works():
    code = """
import sys
sys.modules["pandas"] = sys.modules["safetensors"] = None
from lop_utils.estimator import DeepMatrixCompletion
X = [(user, item) for user in "abcd" for item in range(5)]
print(DeepMatrixCompletion(1, held_out=0).fit(X, range(20)).predict(X).shape)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "(20,)\n"


# What is refused


def fit(X=FRAME, y=None, **settings):
    return DeepMatrixCompletion(**GOOD | settings).fit(X, y)


def changed(column, place, value, dtype=object):
    values = FRAME[column].astype(dtype)
    values[place] = value
    return FRAME.assign(**{column: values})


TWICE = pd.concat([FRAME.assign(user=NAMES[ROWS]), FRAME.assign(user=NAMES[ROWS])[3:5]])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: fit(FRAME.drop(columns="item")), ValueError, "X: wanted one column 'item', got "),
        (lambda: fit(user="who"), ValueError, "X: wanted one column 'who', got columns 'time', "),
        (
            lambda: fit(TWICE),
            ValueError,
            "X: wanted each pair once, got 2 repetitions, the first of user 'é00' and item "
            f"{COLS[3]}; duplicates='mean' takes the mean",
        ),
        (lambda: fit(duplicates="last"), ValueError, "duplicates: wanted one of refuse, mean"),
        (
            lambda: fit(changed("user", 7, None, float)),
            ValueError,
            "X['user']: wanted whole numbers of 64 bits as ids, got nan at number 7",
        ),
        (
            lambda: fit(changed("user", 7, 2.5, float)),
            ValueError,
            "X['user']: wanted whole numbers of 64 bits as ids, got 2.5 at number 7",
        ),
        (
            lambda: fit(changed("user", 7, 2**64)),
            ValueError,
            "X['user']: wanted whole numbers of 64 bits as ids, got 18446744073709551616 at",
        ),
        (
            lambda: fit(changed("user", 7, "ann")),
            TypeError,
            "X['user']: wanted whole numbers, or str throughout, got 'ann' at number 7",
        ),
        (
            lambda: fit(TWICE[:-2].replace({"user": {"é01": None}})),
            TypeError,
            "X['user']: wanted str as the first, got None at number ",
        ),
        (lambda: fit(FRAME.assign(user=True)), TypeError, "X['user']: wanted ids that are whole"),
        (lambda: fit(changed("rating", 7, None, float)), ValueError, "X['rating']: wanted finite"),
        (lambda: fit(FRAME.assign(rating="5")), TypeError, "X['rating']: wanted a tensor of num"),
        (lambda: fit(FRAME.assign(rating=1j)), TypeError, "X['rating']: wanted real numbers"),
        (lambda: fit(PAIRS), ValueError, "X: wanted a matrix with NaN for what is unknown, or ids"),
        (
            lambda: fit(PAIRS, VALUES[1:]),
            ValueError,
            "y: wanted 612 ratings, one a row of X, got 6",
        ),
        (lambda: fit(PAIRS, VALUES[:, None]), ValueError, "y: wanted a vector, got shape (612, 1)"),
        (
            lambda: fit(DENSE, VALUES),
            ValueError,
            "X: wanted ids in two columns, got shape (40, 30)",
        ),
        (
            lambda: fit([(1, 2), (3,)], [1, 2]),
            ValueError,
            "X: wanted ids in two columns, got shape",
        ),
        (lambda: fit(5), ValueError, "X: wanted a matrix with NaN"),
        (
            lambda: fit(sparse.csr_array(DENSE), VALUES),
            TypeError,
            "X: wanted ids in two columns, got a sparse matrix, which goes alone into fit",
        ),
        (
            lambda: fit(np.full((4, 5), np.nan)),
            ValueError,
            "X: wanted some known entries, got none",
        ),
        (lambda: fit(np.where(DENSE == 9, np.inf, DENSE)), ValueError, "X: wanted finite entries"),
        (
            lambda: fit(np.ma.masked_equal(PAIRS, 3), VALUES),
            ValueError,
            "X[:, 0]: wanted ids throughout, got a masked array that hides some",
        ),
        (lambda: fit(clip=(1, 5)), ValueError, "clip: wanted ratings 1 to 5, got 0 to 9"),
        (lambda: fit(clip=(9, 0)), ValueError, "clip: wanted lowest < highest, got (9, 0)"),
        (lambda: fit(clip=5), TypeError, "clip: wanted (lowest, highest) or None, got 5"),
        (lambda: fit(held_out=1.0), ValueError, "held_out: wanted 0 <= held_out < 1"),
        (lambda: fit(refit="no"), TypeError, "refit: wanted True or False, got 'no'"),
        (lambda: fit(effects=0), TypeError, "effects: wanted True or False, got 0"),
        (lambda: fit(rank=0), ValueError, "rank: wanted rank >= 1, got 0"),
        (lambda: fit(device="gpu"), ValueError, "device: wanted one that is here, got 'gpu': "),
        (lambda: fit(options={"gama": 1}), TypeError, "options: wanted some of "),
        (lambda: fit(options={"steps": 1}), TypeError, "options: wanted some of "),
        (
            lambda: DeepMatrixCompletion().fit(FRAME, sample_weight=VALUES),
            TypeError,
            "sample_weight: wanted X and y alone, as each rating counts once",
        ),
    ],
)
def test_messages_of_fit(call, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        call()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda m: m.predict([("3", 4)]),
            TypeError,
            "user: wanted whole numbers as in fit, got str",
        ),
        (lambda m: m.top_n("3"), TypeError, "user: wanted whole numbers as in fit, got str"),
        (lambda m: m.top_n(3, 0), ValueError, "n: wanted n >= 1, got 0"),
        (lambda m: m.top_n(3, exclude_seen=2), TypeError, "exclude_seen: wanted True or False"),
        (lambda m: m.predict(DENSE), ValueError, "X: wanted ids in two columns, got shape"),
        (
            lambda m: m.predict(sparse.eye_array(3)),
            TypeError,
            "X: wanted ids in two columns, got a",
        ),
        (
            lambda m: m.predict(PAIRS[:0]),
            ValueError,
            "X[:, 0]: wanted a vector of ids, got shape (0",
        ),
        (lambda m: m.score(PAIRS), ValueError, "y: wanted ratings, or a frame that has them"),
        (lambda m: m.fold_in(DENSE[:, 1:]), ValueError, "X: wanted 30 columns as in fit, got 29"),
        (lambda m: m.fold_in([("n", 1)], [5]), TypeError, "user: wanted whole numbers as in fit"),
        (
            lambda m: m.fold_in([(99, 1), (99, 77)], [5, 5]),
            ValueError,
            "X: wanted items that fit has seen, got 1 ratings of others, the first of 77; fit",
        ),
        (lambda m: m.fold_in(FRAME[:1]), ValueError, "X: wanted each pair once, got 1 repetitions"),
        (lambda m: m.fold_in([(99, 1)], [10]), ValueError, "clip: wanted ratings 0 to 9, got 10"),
        (lambda m: m.fit(FRAME[:20]), ValueError, ""),
        (lambda m: m.set_params(rank=50).fit(FRAME.assign(user=NAMES[ROWS])), ValueError, ""),
    ],
)
def test_messages_of_a_fitted_model_that_stays_as_it_was(call, error, message, model):
    mine = pickle.loads(pickle.dumps(model))
    with pytest.raises(error, match="^" + re.escape(message)):
        call(mine)
    assert same(mine, model) and np.array_equal(mine.users_, model.users_)


def test_pairs_rated_twice_are_averaged_if_that_is_asked_for(model):
    halves = pd.concat([FRAME.assign(rating=VALUES + 1), FRAME.assign(rating=VALUES - 1)])
    averaged = fit(halves, duplicates="mean", clip=(-1, 10))
    assert same(averaged, fit(clip=(-1, 10)))
    averaged.fold_in([(99, 1), (99, 1)], [2, 3])
    assert averaged.seen_.values[-1] == 2.5


@pytest.mark.parametrize("name", ["predict", "fill", "top_n", "fold_in", "save", "score"])
def test_what_is_not_fitted_says_so(name):
    given = {"fill": (), "top_n": (3,)}.get(name, (FRAME,))
    with pytest.raises(NotFittedError, match="not fitted yet"):
        getattr(DeepMatrixCompletion(), name)(*given)
