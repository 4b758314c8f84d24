"""What students do wrong in *Whitening and invariant subspaces*."""

from planted import Mistake

WHITEN = """\
    _, _, Vt = torch.linalg.svd(X, full_matrices=False)
    return Vt
"""

MISTAKES = [
    Mistake(
        "covariance instead of second moment",
        WHITEN,
        WHITEN.replace("return Vt", "return Vt * X.shape[1] ** 0.5"),
        {"q1": 2.0},
        "do not divide by N",
    ),
    Mistake(
        "centred",
        WHITEN,
        "    X = X - X.mean(1, keepdim=True)\n" + WHITEN,
        {"q1": 1.0},
        "do not centre",
    ),
    Mistake(
        "whitened in place",
        WHITEN,
        WHITEN.replace("return Vt", "return X.copy_(Vt)"),
        {"q1": 3.0},
        "changes its argument 1 in place",
    ),
    Mistake(
        "eigenvectors of the second moment",
        WHITEN,
        "    s, U = torch.linalg.eigh(X @ X.T)\n    return (U / s.sqrt()).T @ X\n",
        {"q1": 1.0},
        "squares the condition number",
    ),
    Mistake(
        "transposed gradient",
        "return found[::-1]",
        "return [G.T for G in found[::-1]]",
        {"q2": 4.0, "q5": 2.0},
        "it is the transpose",
    ),
    Mistake(
        "mean instead of sum",
        "above = below.pop() - Phi",
        "above = (below.pop() - Phi) / Phi.numel()",
        {"q2": 4.0, "q5": 2.0},
        "the gradient of a mean",
    ),
    Mistake(
        "last layer first",
        "return found[::-1]",
        "return found",
        {"q2": 4.0, "q5": 2.0},
        "this belongs to another layer",
    ),
    Mistake(
        "r instead of 2r",
        "return Vt[2 * r :].T",
        "return torch.linalg.svd(Phi).Vh[r:].T",
        {"q3": 4.0, "q5": 1.0},
        "2r, not r",
    ),
    Mistake(
        "the directions that training moves",
        "return Vt[2 * r :].T",
        "return Vt[: 2 * r].T",
        {"q3": 4.0, "q5": 1.0},
        "the rest was asked for",
    ),
    Mistake(
        "forgotten decay",
        "(1 - eta * lam - eta * path",
        "(1 - eta * path",
        {"q4": 2.0, "q5": 1.0},
        "the weight decay is forgotten",
    ),
    Mistake(
        "another exponent",
        "** (2 * (L - 1))",
        "** (2 * L)",
        {"q4": 3.0, "q5": 1.0},
        "the exponent looks like 2L",
    ),
    Mistake(
        "hard-coded answer",
        "    path = [eps]\n",
        "    eps, eta, lam, L, steps = 0.9, 0.1, 0.0, 3, 40\n    path = [eps]\n",
        {"q4": 2.0, "q5": 1.0},
        "does rho_path use its arguments?",
    ),
    Mistake(
        "one layer after the other",
        "    found = gradients(trained, Phi)\n"
        "    trained = [(1 - eta * lam) * W - eta * G for W, G in zip(trained, found)]\n",
        "    for l in range(L):\n"
        "        G = gradients(trained, Phi)[l]\n"
        "        trained[l] = (1 - eta * lam) * trained[l] - eta * G\n",
        {"q5": 2.0},
        "one after the other",
    ),
]
