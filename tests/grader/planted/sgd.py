"""What students do wrong in *SGD's rank*."""

from planted import Mistake

BLOCKS = """\
    J[:p, p:] = -G.T  # W_1^T moves by -eta G^T W_2
    J[p:, :p] = -G  # W_2 moves by -eta G W_1^T
"""
CHANGE = "2 * torch.log1p(-((eta * s) ** 2)).sum()"
STEP = """\
        path.append(path[-1] + float(log_det_change(G, eta)))
        W1, W2 = W1 - eta * W2.T @ G, W2 - eta * G @ W1.T
"""

MISTAKES = [
    Mistake(
        "uphill",
        BLOCKS,
        BLOCKS.replace("-G", "G"),
        {"q1": 2.0},
        "the step goes downhill, against G",
    ),
    Mistake(
        "blocks of opposite signs",
        "J[p:, :p] = -G",
        "J[p:, :p] = G",
        {"q1": 2.0},
        "it is not symmetric",
    ),
    Mistake(
        "the wrong layer transposed",
        "torch.cat([W1.T, W2])",
        "torch.cat([W1, W2.T])",
        {"q1": 2.0},
        "the wrong one is transposed",
    ),
    Mistake(
        "the determinant counted once",
        CHANGE,
        CHANGE.removeprefix("2 * "),
        {"q2": 3.0, "q3": 4.0, "q5": 2.0},
        "gets this factor twice",
    ),
    Mistake(
        "eta not squared",
        CHANGE,
        "2 * torch.log1p(-eta * s**2).sum()",
        {"q2": 3.0, "q3": 4.0, "q5": 2.0},
        "eta is not squared",
    ),
    Mistake(
        "the leading term",
        CHANGE,
        "-2 * (eta * s).square().sum()",
        {"q2": 2.0, "q3": 4.0, "q5": 1.0},
        "this is the leading term",
    ),
    Mistake(
        "a logarithm that rounds",
        "torch.log1p(-((eta * s) ** 2))",
        "torch.log(1 - (eta * s) ** 2)",
        {"q2": 1.0},
        "lost in rounding",
    ),
    Mistake(
        "read off the matrix",
        STEP,
        """\
        W1, W2 = W1 - eta * W2.T @ G, W2 - eta * G @ W1.T
        M = stacked(W1, W2) @ stacked(W1, W2).T
        now = torch.linalg.slogdet(M).logabsdet.item()
        before = now - float(log_det_change(G, eta)) if len(path) == 1 else before
        path.append(now - before)
""",
        {"q3": 2.0, "q5": 1.0},
        "add up the changes",
    ),
    Mistake(
        "another batch for the path",
        "float(log_det_change(G, eta))",
        "float(log_det_change(gradient(W2 @ W1), eta))",
        {"q3": 2.0},
        "call it once a step",
    ),
    Mistake(
        "one layer after the other",
        "W1, W2 = W1 - eta * W2.T @ G, W2 - eta * G @ W1.T",
        "W1 = W1 - eta * W2.T @ G\n        W2 = W2 - eta * G @ W1.T",
        {"q3": 3.0, "q5": 3.0},
        "one after the other",
    ),
    Mistake(
        "no start in the path",
        "torch.tensor(path, dtype",
        "torch.tensor(path[1:], dtype",
        {"q3": 4.0, "q5": 2.0},
        "the 0 at the start is missing",
    ),
    Mistake(
        "layers changed in place",
        "W1, W2 = W1 - eta * W2.T @ G, W2 - eta * G @ W1.T",
        "W1, W2 = W1.sub_(eta * W2.T @ G), W2 - eta * G @ W1.T",
        {"q3": 4.0, "q5": 3.0},
        "changes its argument 1 in place",
    ),
    Mistake(
        "a mean over the samples",
        "* N / batch *",
        "/ N / batch *",
        {"q4": 3.0},
        "ours is a sum",
    ),
    Mistake(
        "the weight of the batch forgotten",
        "* N / batch *",
        "/ batch *",
        {"q4": 3.0},
        "the weight N/b of the batch is missing",
    ),
    Mistake(
        "eta for its square",
        "-2 * eta**2",
        "-2 * eta",
        {"q4": 3.0},
        "eta is not squared",
    ),
    Mistake(
        "paths in the wrong order",
        "(calm, noisy(1))",
        "(noisy(1), calm)",
        {"q5": 3.0},
        "without noise first",
    ),
    Mistake(
        "the transient in the slope",
        "(paths[1][-1] - paths[1][5_000]) / (steps - 5_000)",
        "paths[1][-1] / steps",
        {"q5": 1.0},
        "taken over the whole run",
    ),
    Mistake(
        "the prediction for a measurement",
        "(paths[1][-1] - paths[1][5_000]) / (steps - 5_000)",
        "predicted_slope(X, k, eta, delta, batch)",
        {"q5": 1.0},
        "this is the prediction; measure",
    ),
    Mistake(
        "everything above rounding",
        "(s > s[0] / 100)",
        "(s > 1e-14 * s[0])",
        {"q5": 1.0},
        "none is ever zero",
    ),
]
