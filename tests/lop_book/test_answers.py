"""Right answers pass in whatever words; wrong ones are told what they look like."""

from functools import partial

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
    arrays = [A.numpy(), A.numpy()[::-1].copy()[::-1], list(A.numpy()), A.to_sparse()]
    for got in (A, A.float(), A.tolist(), A + 1e-9, graph, tuple(graph), strided, A + 0j, *arrays):
        answers.compare("A", got, A)
    for got in (2, 2.0, np.float32(2), np.array(2), torch.tensor(2.0), torch.tensor(2)):
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
        (A[:2], r"wanted shape \(3, 2\), got shape \(2, 2\)"),
        (torch.empty(0, 2), r"wanted shape \(3, 2\), got shape \(0, 2\)"),
        (torch.zeros(1).expand(10**15), r"wanted shape \(3, 2\), got shape"),
        (2.0, r"wanted shape \(3, 2\), got a number"),
        ((row for row in A), "wanted a number or a torch.Tensor, got generator"),
        ([A[0], ...], "wanted a number or a torch.Tensor, got list"),
        (A * torch.nan, "wanted finite real numbers, got others"),
        (A + 1e-3j, "wanted finite real numbers, got others"),
        ((A + 1j).numpy(), "wanted finite real numbers, got others"),
        (3 * A, "it is 3 times what was asked for"),
        ((A * 1.00001).float(), "it is float32; wanted float64: it differs .* by 1.0e-05 of its"),
        ((A + 0.1).half(), "it is float16; wanted float64: it differs"),
        (A * 1.000005, "something in it is float32, it seems; wanted float64: it differs"),
        ((A + torch.eye(3, 2)).float(), "differs"),
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
    refused("A: something", "A", A * (1 + 1e-7), A, rtol=1e-9)
    # As float32, which is what torch makes of a list, these would differ by 3e-9.
    known = {"a tenth too many": [float(torch.tensor(1.1))]}
    refused("x: a tenth", "x", torch.tensor([1.1]).double(), [1.0], mistakes=known, rtol=1e-12)


def test_a_list_is_one_in_any_words():
    for got in (A, A.numpy(), A.tolist(), tuple(A)):
        assert [list(row) for row in answers.items("rows", got, 3)] == A.tolist()


@pytest.mark.parametrize(
    ("got", "message"),
    [
        (None, "still missing"),
        (..., "still missing"),
        ([A], "one alone"),
        ([A] * 3, "wanted a list of 2, got 3"),
        (torch.tensor(1.0), "wanted a list of 2, got Tensor"),
        ({0: A, 1: A}, "wanted a list of 2, got dict"),
        ((W for W in [A, A]), "wanted a list of 2, got generator"),
        ("WW", "wanted a list of 2, got str"),
    ],
)
def test_what_is_no_such_list_is_named(got, message):
    with pytest.raises(AssertionError, match=f"^Ws: {message}$"):
        answers.items("Ws", got, 2, mistakes={1: "one alone"})


def test_a_tensor_is_plain_once_its_shape_is_right():
    for got in (A, A.float(), A.numpy(), A.tolist(), A.clone().requires_grad_(), A.to_sparse()):
        found = answers.tensor("A", got, A.shape)
        assert (found.dtype, found.requires_grad) == (torch.float64, False)
        assert torch.equal(found, A)


@pytest.mark.parametrize(
    ("got", "message"),
    [
        (None, "still missing"),
        (A.T, "this is A transposed"),
        (A[0, 0], r"wanted shape \(3, 2\), got a number"),
        (torch.zeros(1).expand(10**15), "wanted shape"),
        (A * torch.nan, "diverged"),
        (A + 1e-3j, "diverged"),
    ],
)
def test_what_is_no_such_tensor_is_named(got, message):
    known = {(2, 3): "this is A transposed"}
    with pytest.raises(AssertionError, match=f"^A: {message}"):
        answers.tensor("A", got, (3, 2), mistakes=known, nan="diverged")


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
        (partial(put, W=A), ([SQUARE],), 1),  # has no name
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
