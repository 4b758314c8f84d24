"""Right answers pass in whatever words; wrong ones are told what they look like."""

import numpy as np
import pytest
import torch

from lop_utils.book import answers

A = torch.tensor([[1.0, 2.0], [3.0, 5.0], [7.0, 11.0]], dtype=torch.float64)
SQUARE = A[:2]
MISTAKES = {
    "the mean instead of the sum": A / 6,
    "a third": A / 3,
    "also a third": A / 3,
    "not transposed": A.T,
    "the sum over all": A.sum(),  # of another shape
}


def refused(message, *compared, **more):
    with pytest.raises(AssertionError, match=f"^{message}"):
        answers.compare(*compared, **more)


def test_a_right_answer_passes_in_any_words():
    strided, graph = A.T.contiguous().T, A.clone().requires_grad_()
    for got in (A, A.float(), A.tolist(), A.numpy(), A + 1e-9, graph, strided, A + 0j):
        answers.compare("A", got, A)
    for got in (2, 2.0, np.float32(2), torch.tensor(2.0), torch.tensor(2)):
        answers.compare("x", got, 2.0)
    answers.compare("empty", torch.empty(0, 3), torch.empty(0, 3))


@pytest.mark.parametrize(
    ("got", "message"),
    [
        (None, "still missing"),
        (..., "still missing"),
        ("text", "wanted a number or a torch.Tensor, got str"),
        (len, "wanted a number or a torch.Tensor, got builtin_function_or_method"),
        ([[1.0], [2.0, 3.0]], "wanted a number or a torch.Tensor, got list"),
        (A.T, "it is the transpose of what was asked for"),
        (-A, "it has the wrong sign"),
        (A[:2], r"wanted shape \(3, 2\), got \(2, 2\)"),
        (torch.empty(0, 2), r"wanted shape \(3, 2\), got \(0, 2\)"),
        (A * torch.nan, "wanted finite real numbers, got others"),
        (A + 1e-3j, "wanted finite real numbers, got others"),
        ((A + 1j).numpy(), "wanted finite real numbers, got others"),
        (3 * A, "it is 3 times what was asked for"),
        (A + torch.eye(3, 2), "differs from what was asked for by 9.1e-02 of its size"),
        (torch.zeros(3, 2), "differs from what was asked for by 1.0e"),
    ],
)
def test_a_wrong_answer_is_told_what_it_looks_like(got, message):
    refused(f"A: {message}", "A", got, A)


def test_known_mistakes_come_first_and_in_their_order():
    for sentence, got in MISTAKES.items():
        said = sentence.removeprefix("also ")
        refused(f"A: {said}$", "A", got, A, mistakes=MISTAKES)


def test_a_mistake_that_is_none_here_is_passed_over():
    S = SQUARE + SQUARE.T
    answers.compare("S", S, S, mistakes={"transposed": S.T})
    refused("S: differs", "S", S + 1, S, mistakes={"transposed": S.T})
    refused("x: differs", "x", 1.0, 2.0)  # any number is a multiple of another


def test_tolerances_are_those_that_are_said():
    answers.compare("A", A + 1e-3, A, rtol=1e-3)
    answers.compare("A", A + 1e-3, A, rtol=0, atol=2e-3)
    refused("A: differs", "A", A + 1e-3, A, rtol=1e-5)
    answers.compare("zero", torch.full((2,), 1e-13), torch.zeros(2))
    refused("zero: differs", "zero", torch.full((2,), 1e-9), torch.zeros(2))
    # As float32, which is what torch makes of a list, these would differ by 3e-9.
    known = {"a tenth too many": [float(torch.tensor(1.1))]}
    refused("x: a tenth", "x", torch.tensor([1.1]).double(), [1.0], mistakes=known, rtol=1e-12)


def test_a_function_gets_copies_and_gives_its_result():
    def product(Ws, scale, start):
        assert all(W is not given for W, given in zip(Ws, layers, strict=True))
        return scale * Ws[0] @ start

    layers = [SQUARE, A]
    assert torch.equal(answers.call(product, layers, 2.0, SQUARE), 2 * SQUARE @ SQUARE)
    answers.call(lambda X: X + 1, torch.tensor([1.0, torch.nan, torch.inf]))
    with pytest.raises(ZeroDivisionError):  # not hidden
        answers.call(lambda: 1 / 0)


def put(Ws, W):
    Ws[0] = W


@pytest.mark.parametrize(
    ("function", "arguments", "place"),
    [
        (lambda X, *rest: X.mul_(2), (A, SQUARE), 1),
        (lambda x, X: X.zero_(), (1, A), 2),
        (lambda X: X.mul_(2), (torch.tensor([torch.inf, 1.0]),), 1),
        (lambda Ws: Ws[1].add_(1), ([SQUARE, SQUARE.T],), 1),
        (lambda Ws: Ws.append(Ws[0]), ([SQUARE, SQUARE],), 1),
        (lambda Ws: Ws[0].append(A), ([[A], A],), 1),
        (lambda Ws: put(Ws, Ws[1]), ([SQUARE, SQUARE.T],), 1),
        (lambda Ws: put(Ws, Ws[0].float()), ([SQUARE],), 1),
        (lambda Ws: put(Ws, None), ([SQUARE],), 1),
        (lambda Ws: put(Ws, None), ([[SQUARE]],), 1),
    ],
)
def test_a_change_in_place_is_named_and_goes_no_further(function, arguments, place):
    before = A.clone()
    with pytest.raises(AssertionError, match=f"changes its argument {place} in place"):
        answers.call(function, *arguments)
    assert torch.equal(A, before)


def test_a_function_that_is_not_there_or_not_written_is_asked_for():
    for function in (None, ..., 3):
        with pytest.raises(AssertionError, match="the function is missing: was its cell run"):
            answers.call(function, 1)
    for result in (None, ...):
        with pytest.raises(AssertionError, match="returns nothing: replace the dots"):
            answers.call(lambda result=result: result)


def test_what_does_not_hold_is_said():
    for kind in (bool, torch.tensor):
        answers.require(kind(True), "never said")
        with pytest.raises(AssertionError, match=r"^why$"):
            answers.require(kind(False), "why")
