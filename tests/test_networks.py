"""Networks against loops, torch's own modules and what they refuse."""

import itertools
import math
import re

import numpy as np
import pytest
import torch
from torch import nn

from lop_utils import networks
from lop_utils.networks import batch_norm_relu, end_to_end, forward

F64 = {"dtype": torch.float64}
DIMS, N = (4, 6, 3, 5, 2), 8  # no two neighbours agree, so a transposed factor cannot pass
RELU = [torch.relu] * 3 + [None]
NORMED = [batch_norm_relu, torch.relu, batch_norm_relu, None]


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), **F64)


def layers(seed=1, dims=DIMS):
    return [0.45 * randn(b, a, seed=seed + b) for a, b in itertools.pairwise(dims)]


RUNS, X = [layers(seed) for seed in (1, 20, 30)], randn(DIMS[0], N)


def worst(found, expected):
    return max((A - B).abs().max().item() for A, B in zip(found, expected, strict=True))


@pytest.mark.parametrize("L", range(1, 5))
def test_end_to_end_is_the_product(L):
    Ws, together = layers()[:L], networks.stack([Ws[:L] for Ws in RUNS])
    product = torch.eye(4, **F64)
    for W in Ws:
        product = W @ product
    found, kept = end_to_end(Ws), [W.clone() for W in Ws]
    assert (found - product).abs().max() < 1e-14
    for b, one in enumerate(end_to_end(together)):
        assert (one - end_to_end(RUNS[b][:L])).abs().max() < 1e-14
    assert torch.equal(end_to_end([W.tolist() for W in Ws]), found)
    found.zero_()  # a new tensor, also of one layer
    assert all(map(torch.equal, Ws, kept))


@pytest.mark.parametrize("activations", [None, RELU, [torch.tanh, torch.relu, None, torch.sigmoid]])
def test_forward_equals_the_slow_way_run_by_run(activations):
    found = forward(networks.stack(RUNS), X, activations)
    assert found[0] is X and [Z.shape for Z in found[1:]] == [(3, d, N) for d in DIMS[1:]]
    for b, Ws in enumerate(RUNS):
        alone = forward(Ws, X, activations)
        assert worst([Z[b] for Z in found[1:]], alone[1:]) < 1e-14
        for i in range(N):
            z = X[:, i]
            for l, W in enumerate(Ws):
                z = torch.stack([sum(w * x for w, x in zip(row, z, strict=True)) for row in W])
                z = activations[l](z) if activations and activations[l] else z
                assert (alone[l + 1][:, i] - z).abs().max() < 1e-14
    by_array = forward([W.numpy()[::-1][::-1] for W in RUNS[0]], X.tolist(), activations)
    assert worst(by_array, forward(RUNS[0], X, activations)) == 0


# Statistics


def normed_by_loops(Z, correction=0, factor=2):
    rows = []
    for row in Z.tolist():
        mean = sum(row) / len(row)
        spread = math.sqrt(sum((x - mean) ** 2 for x in row) / (len(row) - correction))
        rows.append([math.sqrt(factor / len(Z)) * max(0, (x - mean) / spread) for x in row])
    return torch.tensor(rows, **F64)


def test_batch_norm_relu_equals_the_slow_way():
    Z = 3 * randn(2, 5, 9) + 1
    for A, found in zip(Z, batch_norm_relu(Z), strict=True):
        assert (found - normed_by_loops(A)).abs().max() < 1e-9
        by_torch = nn.functional.batch_norm(A.T, None, None, training=True, eps=1e-10).T
        assert (found - (2 / 5) ** 0.5 * torch.relu(by_torch)).abs().max() < 1e-13
        for wrong in (normed_by_loops(A, correction=1), normed_by_loops(A, factor=1)):
            assert (found - wrong).abs().max() > 1e-2
    assert torch.autograd.gradcheck(batch_norm_relu, Z.requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, 0.1, -1000.1, 1e8 / 3])
def test_a_feature_that_never_varies_stays_zero(dtype, value):
    Z = randn(2, 1000).to(dtype)
    Z[0] = value
    found = batch_norm_relu(Z.requires_grad_())
    found.square().sum().backward()
    assert not found[0].any() and found[1].any()
    assert found.isfinite().all() and Z.grad.isfinite().all()


@pytest.mark.parametrize("d", [1, 30, 300])
def test_a_sample_has_length_one_on_average(d):
    lengths = batch_norm_relu(7 * randn(d, 60_000 // d) - 2).square().sum(0)
    assert lengths.mean().item() == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("start", [RUNS[0], networks.stack(RUNS)], ids=["one", "runs"])
def test_fixed_statistics_are_those_of_the_samples_given(start):
    more = 5 * randn(DIMS[0], 6, seed=5) + 1
    fixed = networks.fix_statistics(start, X, NORMED)
    assert [a is b for a, b in zip(fixed, NORMED, strict=True)] == [False, True, False, True]
    assert worst(forward(start, X, fixed), forward(start, X, NORMED)) == 0
    together, free = (forward(start, more, given)[-1] for given in (fixed, NORMED))
    assert (together - free).abs().max() > 1e-2  # other samples have other statistics
    for i in range(6):  # one sample alone, of which free statistics leave nothing
        alone = forward(start, more[:, i : i + 1], fixed)[-1]
        assert (alone[..., 0] - together[..., i]).abs().max() < 1e-12
        assert not forward(start, more[:, i : i + 1], NORMED)[-1].any()
    again = networks.fix_statistics(start, more, fixed)
    assert all(a is b for a, b in zip(again, fixed, strict=True))


def test_stacked_runs_come_back_apart():
    for l, W in enumerate(networks.stack([[W.tolist() for W in RUNS[0]], *RUNS[1:]])):
        assert W.shape == (3, DIMS[l + 1], DIMS[l])
        assert all(torch.equal(W[b], Ws[l]) for b, Ws in enumerate(RUNS))


# torch's modules


def test_to_torch_and_back(tmp_path):
    Ws, state = [W.clone().requires_grad_() for W in layers()], torch.get_rng_state()
    for activations in (None, RELU, [nn.ReLU(), torch.tanh, nn.Sigmoid(), None]):
        model = networks.to_torch(Ws, activations)
        expected = forward(Ws, X, activations)[-1]
        assert (model(X.T).T - expected).abs().max() < 1e-14
        back = networks.from_torch(model)
        assert worst(back, Ws) == 0 and not any(W.requires_grad for W in back)
        assert all(p.requires_grad and p.is_leaf for p in model.parameters())
        assert worst(networks.from_torch(model.state_dict()), Ws) == 0
        # Neither way shares a number.
        sizes = [(m.out_features, m.in_features) for m in model if isinstance(m, nn.Linear)]
        assert sizes == [tuple(W.shape) for W in Ws]
        with torch.no_grad():
            for A in model.parameters():
                A.zero_()
        assert worst(Ws, layers()) == 0 == worst(back, Ws)
    assert torch.equal(torch.get_rng_state(), state)  # nor draws one
    relu = nn.ReLU()
    assert networks.to_torch(Ws[:1], [relu])[1] is relu


def test_a_state_loads_into_the_sequential_that_a_reader_writes(tmp_path):
    def plain():
        linear = [nn.Linear(a, b, bias=False, **F64) for a, b in itertools.pairwise(DIMS)]
        return nn.Sequential(
            linear[0], nn.ReLU(), linear[1], nn.ReLU(), linear[2], nn.ReLU(), linear[3]
        )

    ours = networks.to_torch(layers(), RELU)
    torch.save(ours.state_dict(), tmp_path / "state.pt")
    theirs = plain()
    theirs.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert (theirs(X.T) - ours(X.T)).abs().max() < 1e-14
    other = plain()
    ours.load_state_dict(other.state_dict())
    assert worst(networks.from_torch(other), networks.from_torch(ours)) == 0
    # Trained as torch's own, by torch's own means.
    ours(X.T).sum().backward()
    assert all(p.grad is not None for p in ours.parameters())


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (nn.Linear(2, 2), ValueError, "model: wanted weights of linear layers alone, got bias"),
        (nn.BatchNorm1d(2), ValueError, "model: wanted weights of linear layers alone, got bias, "),
        (nn.Conv1d(2, 2, 1, bias=False), ValueError, "model[0]: wanted a matrix, got shape (2, 2,"),
        (nn.ReLU(), ValueError, "model: wanted at least one matrix, got none"),
        ([torch.eye(2)], TypeError, "model: wanted a module or its state_dict, got list"),
        (
            {"a.weight": torch.eye(3), "b.weight": torch.eye(2)},
            ValueError,
            "model[1]: wanted 3 columns to follow model[0]",
        ),
    ],
)
def test_models_of_another_kind_are_named(model, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        networks.from_torch(model)


# Device, dtype and refusals


def test_device_and_dtype_are_kept(place):
    start, Z = [W.to(**place.kind) for W in networks.stack(RUNS)], X.to(**place.kind)
    model = networks.to_torch([W[0] for W in start], RELU)
    found = [
        end_to_end(start),
        *forward(start, Z, networks.fix_statistics(start, Z, NORMED)),
        model(Z.T).detach(),
        *networks.from_torch(model),
    ]
    expected = [end_to_end(networks.stack(RUNS)), *forward(networks.stack(RUNS), X, NORMED)]
    expected += [forward(RUNS[0], X, RELU)[-1].T, *RUNS[0]]
    for A, B in zip(found, expected, strict=True):
        assert A.dtype == place.kind["dtype"] and A.device.type == place.kind["device"]
        assert (A.cpu().double() - B).abs().max() < 10 * place.tolerance


def test_shapes_move_on_the_meta_device():
    Ws = [W.to("meta") for W in networks.stack(RUNS)]
    assert end_to_end(Ws).shape == (3, 2, 4) and forward(Ws, X.to("meta"))[-1].shape == (3, 2, N)


ONE, X2 = [torch.ones(3, 2), torch.ones(1, 3)], torch.ones(2, 4)
MANY, NAN3 = [torch.ones(5, 3, 2), torch.ones(5, 1, 3)], torch.full((3, 2), math.nan)


@pytest.mark.parametrize("function", ["forward", "fix_statistics", "end_to_end", "to_torch"])
@pytest.mark.parametrize(
    ("Ws", "X", "L", "error", "message"),
    [
        (ONE[0], X2, 2, TypeError, "Ws: wanted a sequence of matrices, got Tensor"),
        ([], X2, 0, ValueError, "Ws: wanted at least one matrix, got none"),
        ([ONE[0], ["a"]], X2, 2, TypeError, "Ws[1]: wanted a tensor of numbers, got list"),
        ([W.int() for W in ONE], X2, 2, TypeError, "Ws[0]: wanted float32 or float64, got torch.i"),
        ([NAN3, ONE[1]], X2, 2, ValueError, "Ws[0]: wanted finite entries, got NaN or infinity"),
        ([MANY[0] * math.nan], X2, 1, ValueError, "Ws[0]: wanted "),
        (ONE[::-1], X2, 2, ValueError, "Ws[1]: wanted 1 columns to follow Ws[0] of shape (1, 3)"),
        ([MANY[0], ONE[1]], X2, 2, ValueError, "Ws[1]: wanted one matrix for each run as Ws[0]"),
        (ONE, X2, 1, ValueError, "activations: wanted one behind each of L = 2 layers, got 1"),
        (ONE, X2[0], 2, ValueError, "X: wanted a matrix, got shape (4,)"),
        (ONE, X2.double(), 2, ValueError, "X: wanted torch.float32 on cpu as Ws[0], got"),
        (ONE, X2 * math.nan, 2, ValueError, "X: wanted finite entries, got NaN or infinity"),
        (MANY, X2.T, 2, ValueError, "X: wanted 2 rows, got shape (4, 2)"),
        (MANY, None, 2, ValueError, "Ws[0]: wanted a matrix, got shape (5, 3, 2)"),
    ],
)
def test_a_network_that_does_not_fit_is_named(function, Ws, X, L, error, message):
    data = () if function in ("end_to_end", "to_torch") else (X,)
    activations = () if function == "end_to_end" else ([None] * L,)
    if (message[0] == "X" and not data) or (message[0] == "a" and not activations):
        return
    if X is None and function != "to_torch":  # the others take many runs
        return
    with pytest.raises(error, match="^" + re.escape(message)):
        getattr(networks, function)(Ws, *data, *activations)


@pytest.mark.parametrize(
    ("runs", "error", "message"),
    [
        ([], ValueError, "runs: wanted at least one network, got none"),
        ([ONE[0]], TypeError, "runs[0]: wanted a sequence of matrices, got Tensor"),
        ([ONE, [NAN3, ONE[1]]], ValueError, "runs[1][0]: wanted finite entries, got NaN"),
        ([ONE, ONE[:1]], ValueError, "runs[1]: wanted L = 2 layers as runs[0], got 1"),
        ([ONE[:1], [X2]], ValueError, "runs[1][0]: wanted shape (3, 2), got (2, 4)"),
        ([ONE, [W.double() for W in ONE]], ValueError, "runs[1][0]: wanted torch.float32 on cpu"),
        ([ONE, [np.ones((3, 2)), ONE[1]]], ValueError, "runs[1][1]: wanted torch.float64 on cpu"),
    ],
)
def test_runs_that_differ_are_named(runs, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        networks.stack(runs)
