r"""Completion as an estimator of scikit-learn: from a table of ratings to a model that is saved.

`DeepMatrixCompletion` is `completion.complete` on what `observed.fit_effects` leaves, behind the
interface that pipelines and searches of scikit-learn know. It takes ids of any kind, measures its
own error, and writes itself into a file of safetensors. Import it by name; a CSV and ``save`` need
the extra: ``pip install 'lop-utils[frames]'``.
"""

import copy
import os
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from lop_utils import _checks, _estimated, _estimating, observed
from lop_utils._estimated import Fitted
from lop_utils.observed import ObservedEntries

__all__ = ["DeepMatrixCompletion"]

_FACTS = ("noise_", "held_out_rmse_", "effects_rmse_", "n_held_out_", "n_iter_", "stopped_")
_SEEN = ("rows", "cols", "values")
_PASSED = ("width", "L", "eps", "lam", "patience", "steps")


class DeepMatrixCompletion(RegressorMixin, BaseEstimator):
    r"""Ratings as a mean, effects of user and item, and a compressed deep linear network.

    Entries are held out first; effects and network are fitted to the others, those held out give
    ``held_out_rmse_``, and both are fitted again to all of them.

    Parameters
    ----------
    rank : int, optional
        Rank to expect of what effects leave; a guess from above does little harm. By default 10,
        or less where the ratings do not determine so much.
    width, L, eps, lam, patience, steps : optional
        As of `completion.complete`, which says what None is.
    options : dict, optional
        Further arguments of it by name, ``{"gamma": 3.0}`` say.
    effects : bool
        Whether to fit effects first. Without them nothing is subtracted, not even the mean: right
        for a matrix of low rank, wrong for ratings.
    shrinkage : float
        As of `observed.fit_effects`.
    clip : (float, float), optional
        Scale of the ratings. Predictions are clipped to it, ratings beyond it are refused.
    held_out : float
        Share of the ratings that is held out; at 0 ``held_out_rmse_`` is NaN. Of the others
        `completion.complete` holds out a tenth in turn, to see when to stop.
    refit : bool
        Whether to fit once more, to all ratings, for as many steps as were best. False takes half
        the time, as a search over settings may want.
    duplicates : str
        What a pair is that is rated twice: "refuse" raises an error that names it, "mean" takes
        the mean.
    user, item, rating : str
        Columns of a data frame.
    device : str or torch.device, optional
        Where to train, ``"cuda"`` say; by default where the ratings are.
    progress : bool
        Show progress bars.
    random_state : int, RandomState or None
        Draws what is held out.

    Attributes
    ----------
    users_, items_
        The ids in order, arrays of int64 or str; of a matrix the numbers of its rows and columns.
    fitted_
        ``mean``, ``user_effects``, ``item_effects``, zeros without effects, and the factors of
        what the network adds, ``user_factors`` of shape (users, k), ``item_factors`` (items, k).
    seen_
        `observed.ObservedEntries`: the ratings, by number of user and item.
    held_out_rmse_, effects_rmse_, n_held_out_
        Root mean square error of the predictions on the entries held out, of effects alone on the
        same, and how many they are. No choice was made by them.
    noise_, n_iter_, stopped_
        The error by which training was stopped, the steps taken in the last fit, and what ended
        the first.

    Notes
    -----
    ``fit`` takes ratings in four forms, and gives the same model for each:

    - a data frame (of pandas, polars or pyarrow) with columns of users, items and ratings;
    - a scipy.sparse matrix of users x items, whose stored entries, zeros too, are the ratings;
    - an array or tensor of users x items with NaN for what is unknown;
    - ids in two columns, an array of shape (n, 2) or a frame, and the ratings as ``y``.

    Frames and pairs can be cross-validated, as their rows are ratings; rows of a matrix are users.

    Ids are whole numbers of 64 bits, or str. One that ``fit`` did not see has effect 0 and no
    factors: the prediction is the mean with the effect of whichever of the two is known.
    There are no weights: ``fit`` refuses ``sample_weight``.

    Examples
    --------
    >>> X, y = [("ann", 1), ("ann", 2), ("bob", 1), ("bob", 3), ("eve", 2)], [5, 3, 4, 2, 3]
    >>> model = DeepMatrixCompletion(rank=1, width=1, held_out=0, options={"gamma": 3.0})
    >>> model = model.fit(X, y)
    >>> model.predict([("eve", 1), ("new", 1), ("new", 9)]).round(1).tolist()
    [4.3, 3.7, 3.4]
    """

    def __init__(
        self,
        rank: int | None = None,
        *,
        width: int | None = None,
        L: int | None = None,
        eps: float | None = None,
        lam: float | None = None,
        patience: int | None = None,
        steps: int | None = None,
        options: dict[str, Any] | None = None,
        effects: bool = True,
        shrinkage: float = 5.0,
        clip: tuple[float, float] | None = None,
        held_out: float = 0.1,
        refit: bool = True,
        duplicates: str = "refuse",
        user: str = "user",
        item: str = "item",
        rating: str = "rating",
        device: str | torch.device | None = None,
        progress: bool = False,
        random_state: int | np.random.RandomState | None = 0,
    ):
        self.rank = rank
        self.width = width
        self.L = L
        self.eps = eps
        self.lam = lam
        self.patience = patience
        self.steps = steps
        self.options = options
        self.effects = effects
        self.shrinkage = shrinkage
        self.clip = clip
        self.held_out = held_out
        self.refit = refit
        self.duplicates = duplicates
        self.user = user
        self.item = item
        self.rating = rating
        self.device = device
        self.progress = progress
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        """Say what the checks of scikit-learn need not find out."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = tags.input_tags.allow_nan = tags.input_tags.string = True
        tags.target_tags.required = False
        tags.regressor_tags.poor_score = True
        return tags

    def __repr__(self, N_CHAR_MAX: int = 700) -> str:
        """Return the parameters that were set, and of a fitted model sizes and errors."""
        told = " ".join(super().__repr__(N_CHAR_MAX).split())
        if not hasattr(self, "users_"):
            return told
        (users, items), k = self.seen_.shape, self.fitted_.user_factors.shape[1]
        error = "nothing was held out"
        if self.n_held_out_:
            rival = "effects" if self.effects else "zeros"
            error = (
                f"RMSE {self.held_out_rmse_:.4g} on {self.n_held_out_} ratings held out, "
                f"of {rival} alone {self.effects_rmse_:.4g}"
            )
        return (
            f"{told}\n{users} users x {items} items, {len(self.seen_)} ratings; width {k}, "
            f"{self.n_iter_} steps, stopped by {self.stopped_}\n{error}"
        )

    def fit(self, X: Any, y: Any = None, **refused: Any) -> "DeepMatrixCompletion":
        """Fit the ratings in ``X``, or those in ``y`` at the ids in ``X``."""
        for name in refused:  # sample_weight, above all
            raise TypeError(f"{name}: wanted X and y alone, as each rating counts once")
        given = self._given(X, y)
        if given.shape:
            (users, items), (rows, cols) = map(np.arange, given.shape), given[:2]
        else:
            (users, rows), (items, cols) = map(_estimating.numbered, given[:2])
        shape = len(users), len(items)
        fitted = copy.copy(self)  # so that an error leaves what was there before
        fitted.users_, fitted.items_ = users, items
        fitted.seen_ = _estimating.merged(given, rows, cols, shape, self.duplicates)
        fitted._fit(_estimating.device(self.device, given.values))
        vars(self).update(vars(fitted))
        return self

    def _fit(self, device: torch.device) -> None:
        seen, seed = self.seen_, check_random_state(self.random_state).randint(2**31 - 1)
        train, test = seen, None
        if round(_checks.fraction("held_out", self.held_out) * len(seen)):
            train, test = observed.split(seen, self.held_out, generator=seed)
        own = {name: getattr(self, name) for name in _PASSED}
        options = _estimating.options(self.options, **own)
        options |= {"generator": seed, "progress": self.progress}
        options["rank"] = _estimating.rank_for(train) if self.rank is None else self.rank
        self.fitted_, first = _estimated.fit(train, self._shrinkage(), device, **options)
        self.stopped_, self.noise_, self.n_iter_ = "no rest", 0.0, 0
        if first:
            self.stopped_, self.noise_, self.n_iter_ = first.stopped, first.error, first.steps
        self.held_out_rmse_, self.effects_rmse_, self.n_held_out_ = float("nan"), float("nan"), 0
        if test is not None:
            self.n_held_out_, places = len(test), (test.rows.numpy(), test.cols.numpy())
            for name, expected in (
                ("held_out", self.fitted_.ratings),
                ("effects", self.fitted_.effects),
            ):
                gap = self._clipped(expected(*places)) - test.values.numpy()
                setattr(self, f"{name}_rmse_", float(np.sqrt(np.mean(gap**2))))
        if _checks.flag("refit", self.refit) and self.stopped_ != "interrupted":
            if first and not first.finish and first.stopped != "exact":
                self.n_iter_ = options["steps"] = first.best.t
                options |= {"held_out": 0.0, "finish": False}
            self.fitted_, _ = _estimated.fit(seen, self._shrinkage(), device, **options)

    def _shrinkage(self) -> float | None:
        return self.shrinkage if _checks.flag("effects", self.effects) else None

    def _given(self, X: Any, y: Any) -> _estimating.Ratings:
        given = _estimating.ratings(X, y, self.user, self.item, self.rating)
        _estimating.scale(self.clip, given.values)
        return given

    def _clipped(self, ratings: np.ndarray) -> np.ndarray:
        return ratings if self.clip is None else np.clip(ratings, *self.clip)

    def predict(self, X: Any) -> np.ndarray:
        """Return the ratings expected at ids in two columns, shape (n,)."""
        check_is_fitted(self)
        users, items = _estimating.pairs(X, self.user, self.item)
        rows = _estimating.numbers_of("user", self.users_, users)
        cols = _estimating.numbers_of("item", self.items_, items)
        return self._clipped(self.fitted_.ratings(rows, cols))

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return R^2, as regressors do, of ``y``, or of the ratings in a frame."""
        expected = self.predict(X)
        if y is None and not hasattr(X, "columns"):
            raise ValueError("y: wanted ratings, or a frame that has them, got None")
        values = _estimating.ratings(X, y, self.user, self.item, self.rating).values
        return r2_score(values.numpy(force=True), expected, sample_weight=sample_weight)

    def fill(self) -> np.ndarray:
        """Return the matrix of users x items: ratings as they are, all else as expected."""
        check_is_fitted(self)
        whole, seen = self._clipped(self.fitted_.whole()), self.seen_
        whole[seen.rows.numpy(), seen.cols.numpy()] = seen.values.numpy()
        return whole

    def top_n(
        self, user: int | str, n: int = 10, *, exclude_seen: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the items of the highest ratings expected, at most n, and these ratings.

        What clipping makes equal keeps its order. Who is not known is offered what all like best.
        """
        check_is_fitted(self)
        n = _checks.count("n", n, at_least=1)
        row = _estimating.numbers_of("user", self.users_, _estimating.ids("user", [user]))
        left = np.arange(len(self.items_))
        expected = self.fitted_.ratings(row.repeat(len(left)), left)
        if _checks.flag("exclude_seen", exclude_seen):
            start, end = np.searchsorted(self.seen_.rows.numpy(), [row[0], row[0] + 1])
            left = np.delete(left, self.seen_.cols[start:end].numpy())
        best = left[np.argsort(-expected[left], kind="stable")[:n]]
        return self.items_[best], self._clipped(expected[best])

    def fold_in(self, X: Any, y: Any = None) -> "DeepMatrixCompletion":
        """Add users by their ratings, without training: items stay as they are.

        A user's effect and factors are ridge regressions on those of the items; how much they
        shrink follows from ``shrinkage``, from the spread of all users' factors and from the error
        that training ended with. Users who are known are fitted anew, to old and new ratings
        together; rows of a matrix are further users. Items that ``fit`` has not seen are refused.
        """
        check_is_fitted(self)
        known = self.users_, self.items_, self.seen_
        users, old, seen, part = _estimating.joined(self._given(X, y), *known, self.duplicates)
        found = _estimated.folded_in(self.fitted_, part, self.noise_, self._shrinkage())
        sides = {}
        for name, values in zip(("user_effects", "user_factors"), found, strict=True):
            before = getattr(self.fitted_, name)
            sides[name] = np.zeros((len(users), *before.shape[1:]), before.dtype)
            sides[name][old], sides[name][part.rows.unique().numpy()] = before, values
        self.users_, self.seen_, self.fitted_ = users, seen, self.fitted_._replace(**sides)
        return self

    def save(self, file: str | os.PathLike) -> None:
        """Write everything, the ratings too, into one file of safetensors that `load` reads."""
        check_is_fitted(self)
        arrays = {"users_": self.users_, "items_": self.items_, **self.fitted_._asdict()}
        arrays |= {f"seen_{name}": getattr(self.seen_, name).numpy() for name in _SEEN}
        about = {name: getattr(self, name) for name in _FACTS}
        _estimated.write(file, arrays, {"parameters": self.get_params(), "fitted": about})

    @classmethod
    def load(cls, file: str | os.PathLike) -> "DeepMatrixCompletion":
        """Return the model that `save` wrote."""
        arrays, about = _estimated.read(file)
        told = about["parameters"].items()
        model = cls(**{name: tuple(v) if isinstance(v, list) else v for name, v in told})
        vars(model).update(about["fitted"], users_=arrays["users_"], items_=arrays["items_"])
        model.fitted_ = Fitted(*(arrays[name] for name in Fitted._fields))
        seen = [torch.from_numpy(arrays[f"seen_{name}"]) for name in _SEEN]
        model.seen_ = ObservedEntries(*seen, (len(model.users_), len(model.items_)))
        return model
