"""Right answers pass in whatever words; wrong ones are told what they look like."""

import pytest
import torch

from lop_utils import answers

A = torch.tensor([[1.0, 2.0], [3.0, 5.0], [7.0, 11.0]], dtype=torch.float64)
SQUARE = A[:2]


RIGHT = [A, A.float(), A.tolist(), A.numpy(), A + 1e-9, A.clone().requires_grad_()]


@pytest.mark.parametrize(
    ("got", "wanted"),
    [
        *((got, A) for got in [*RIGHT, A.T.contiguous().T]),
        *((got, 2.0) for got in [2, 2.0, torch.tensor(2.0), torch.tensor(2)]),
        (torch.empty(0, 3), torch.empty(0, 3)),
    ],
)
def test_a_right_answer_passes_in_any_words(got, wanted):
    answers.compare("A", got, wanted)


@pytest.mark.parametrize(
    ("got", "message"),
    [
        (None, "A: still missing"),
        (..., "A: still missing"),
        ("text", "A: wanted a number or a torch.Tensor, got str"),
        (len, "A: wanted a number or a torch.Tensor, got builtin_function_or_method"),
        ([[1.0], [2.0, 3.0]], "A: wanted a number or a torch.Tensor, got list"),
        (A.T, "A: it is the transpose of what was asked for"),
        (-A, "A: it has the wrong sign"),
        (A[:2], r"A: wanted shape \(3, 2\), got \(2, 2\)"),
        (A * torch.nan, "A: wanted finite numbers, got NaN or infinity"),
        (3 * A, "A: it is 3 times what was asked for"),
        (A + torch.eye(3, 2), "A: differs from what was asked for by 9.1e-02 of its size"),
        (torch.zeros(3, 2), "A: differs from what was asked for by 1.0e"),
    ],
)
def test_a_wrong_answer_is_told_what_it_looks_like(got, message):
    with pytest.raises(AssertionError, match=message):
        answers.compare("A", got, A)


def test_no_number_is_a_multiple_and_no_nothing_another():
    with pytest.raises(AssertionError, match="x: differs from what was asked for by"):
        answers.compare("x", 1.0, 2.0)
    with pytest.raises(AssertionError, match="wanted shape"):
        answers.compare("empty", torch.empty(0, 2), torch.empty(0, 3))


def test_known_mistakes_come_first_and_in_their_order():
    mistakes = {"the mean instead of the sum": A / 6, "a third": A / 3, "also a third": A / 3}
    for got, message in [(A / 6, "the mean instead of the sum"), (A / 3, "a third")]:
        with pytest.raises(AssertionError, match=f"A: {message}"):
            answers.compare("A", got, A, mistakes=mistakes)
    for wrong in (A.T, A.sum()):  # also one of another shape
        with pytest.raises(AssertionError, match="A: known"):
            answers.compare("A", wrong, A, mistakes={"known": wrong})


def test_a_mistake_that_is_none_here_is_passed_over():
    symmetric = SQUARE + SQUARE.T
    answers.compare("A", symmetric, symmetric, mistakes={"transposed": symmetric.T})
    with pytest.raises(AssertionError, match="A: differs"):
        answers.compare("A", symmetric + 1, symmetric, mistakes={"transposed": symmetric.T})


def test_tolerances_are_those_that_are_said():
    answers.compare("A", A + 1e-3, A, rtol=1e-3)
    answers.compare("A", A + 1e-3, A, rtol=0, atol=2e-3)
    with pytest.raises(AssertionError, match="A: differs"):
        answers.compare("A", A + 1e-3, A, rtol=1e-5)
    answers.compare("zero", torch.full((2,), 1e-13), torch.zeros(2))
    with pytest.raises(AssertionError, match="zero: differs"):
        answers.compare("zero", torch.full((2,), 1e-9), torch.zeros(2))


def test_numbers_in_lists_keep_their_digits():
    """As float32, which is what torch makes of a list, these would differ by 3e-9."""
    with pytest.raises(AssertionError, match="x: a tenth too many"):
        answers.compare(
            "x",
            torch.tensor([1.1]).double(),
            [1.0],
            mistakes={"a tenth too many": [float(torch.tensor(1.1))]},
            rtol=1e-12,
        )


def test_a_function_gets_copies_and_gives_its_result():
    def product(Ws, scale, start):
        assert all(W is not given for W, given in zip(Ws, layers, strict=True))
        return scale * Ws[0] @ start

    layers = [SQUARE, A]
    assert torch.equal(answers.call(product, layers, 2.0, SQUARE), 2 * SQUARE @ SQUARE)


def test_what_is_not_a_number_is_not_changed_by_that():
    holes = torch.tensor([1.0, torch.nan, torch.inf])
    answers.call(lambda X: X + 1, holes)
    with pytest.raises(AssertionError, match="changes its argument 1"):
        answers.call(change_first, holes[:1])


def change_first(X, *rest):
    X.mul_(2)
    return X


def append(Ws):
    Ws.append(Ws[0])
    return Ws


def change_inside(Ws):
    Ws[1] += 1
    return Ws


def replace_inside(Ws):
    Ws[0] = Ws[1]
    return Ws


@pytest.mark.parametrize(
    ("function", "arguments", "place"),
    [
        (change_first, (A,), 1),
        (change_first, (A, SQUARE), 1),
        (append, ([SQUARE, SQUARE],), 1),
        (change_inside, ([SQUARE, SQUARE.T],), 1),
        (replace_inside, ([SQUARE, SQUARE.T],), 1),
        (lambda x, X: X.zero_(), (1, A), 2),
    ],
)
def test_a_change_in_place_is_named_and_goes_no_further(function, arguments, place):
    before = [A.clone(), SQUARE.clone()]
    with pytest.raises(AssertionError, match=f"changes its argument {place} in place"):
        answers.call(function, *arguments)
    assert torch.equal(A, before[0])
    assert torch.equal(SQUARE, before[1])


@pytest.mark.parametrize(
    ("function", "message"),
    [
        *((missing, "the function is missing: was its cell run") for missing in (None, ..., 3)),
        (lambda: None, "returns nothing: replace the dots"),
        (lambda: ..., "returns nothing: replace the dots"),
    ],
)
def test_a_function_that_is_not_written_yet_is_asked_for(function, message):
    with pytest.raises(AssertionError, match=message):
        answers.call(function)


def test_what_the_function_raises_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        answers.call(lambda: 1 / 0)


@pytest.mark.parametrize("kind", [bool, torch.tensor])
def test_what_does_not_hold_is_said(kind):
    answers.require(kind(True), "never said")
    with pytest.raises(AssertionError, match=r"^why$"):
        answers.require(kind(False), "why")
