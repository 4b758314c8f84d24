"""What students do wrong in *Complete a matrix*."""

from planted import Mistake

SPECTRAL = "return [eps * Vt[:k], *inner, eps * U[:, :k]]"
GATHERED = """\
    stepped = []
    for l in reversed(range(1, len(Ws))):
        rate = gamma * eta if l == len(Ws) - 1 else eta
        stepped.append(Ws[l] - rate * above @ below[l - 1].T)
        above = Ws[l].T @ above
    stepped.append(Ws[0] - gamma * eta * above)
    return stepped[::-1]
"""
ONE_BY_ONE = """\
    Ws = list(Ws)
    for l in range(len(Ws)):
        _, R = loss_and_residual(Ws, M, Omega)
        for W in reversed(Ws[l + 1 :]):
            R = W.T @ R
        for W in Ws[:l]:
            R = R @ W.T
        Ws[l] = Ws[l] - (gamma * eta if l in (0, len(Ws) - 1) else eta) * R
    return Ws
"""

MISTAKES = [
    Mistake(
        "mean instead of sum",
        "    return 0.5 * (R**2).sum(), R\n",
        "    return 0.5 * (R**2).sum() / Omega.sum(), R / Omega.sum()\n",
        {"q1": 3.0, "q3": 3.0, "q4": 3.0, "q5": 1.0},
        "a mean over the observed entries",
    ),
    Mistake(
        "forgotten mask",
        "    R = torch.where(Omega, W - M, 0.0)\n",
        "    R = W - M\n",
        {"q1": 3.0, "q3": 3.0, "q4": 3.0, "q5": 1.0},
        "the mask is forgotten",
    ),
    Mistake(
        "multiplied by the mask",
        "    R = torch.where(Omega, W - M, 0.0)\n",
        "    R = Omega * (W - M)\n",
        {"q1": 1.0, "q4": 1.0, "q5": 1.0},
        "0 nan = nan",
    ),
    Mistake(
        "product in the order of the list",
        "        W = layer @ W\n",
        "        W = W @ layer\n",
        {"q1": 3.0, "q3": 3.0, "q4": 3.0, "q5": 1.0},
        "W_1 W_2 instead of W_2 W_1",
    ),
    Mistake(
        "forgotten 1/p",
        "return torch.where(Omega, M, 0.0) / Omega.double().mean()",
        "return torch.where(Omega, M, 0.0)",
        {"q2": 2.0, "q4": 3.0, "q5": 1.0},
        "the factor 1/p is forgotten",
    ),
    Mistake(
        "surrogate in place",
        "    return torch.where(Omega, M, 0.0) / Omega.double().mean()\n",
        "    M[~Omega] = 0\n    return M / Omega.double().mean()\n",
        {"q2": 2.0, "q4": 2.0, "q5": 1.0},
        "changes its argument 1 in place",
    ),
    Mistake(
        "forgotten eps",
        SPECTRAL,
        "return [Vt[:k], *inner, U[:, :k]]",
        {"q2": 2.0, "q4": 3.0},
        "eps is forgotten",
    ),
    Mistake(
        "U and V swapped",
        SPECTRAL,
        "return [eps * U[:, :k].T, *inner, eps * Vt[:k].T]",
        {"q2": 2.0, "q4": 3.0, "q5": 1.0},
        "made of U",
    ),
    Mistake(
        "gamma on the inner layers",
        GATHERED,
        GATHERED.replace(
            "gamma * eta if l == len(Ws) - 1 else eta", "eta if l == len(Ws) - 1 else gamma * eta"
        ).replace("gamma * eta * above", "eta * above"),
        {"q3": 3.0, "q4": 3.0},
        "gamma is on the inner layer",
    ),
    Mistake(
        "one layer after the other",
        GATHERED,
        ONE_BY_ONE,
        {"q3": 3.0, "q4": 1.0},
        "one after the other",
    ),
    Mistake(
        "uphill",
        GATHERED,
        GATHERED.replace("Ws[l] - rate", "Ws[l] + rate").replace("Ws[0] - ", "Ws[0] + "),
        {"q3": 3.0, "q4": 3.0, "q5": 1.0},
        "it goes uphill",
    ),
    Mistake(
        "step in place",
        "    stepped.append(Ws[0] - gamma * eta * above)\n",
        "    Ws[0] -= gamma * eta * above\n    stepped.append(Ws[0])\n",
        {"q3": 3.0},
        "in place",
    ),
    Mistake(
        "error on the observed entries",
        "torch.linalg.norm((W - Phi)[~Omega]) / torch.linalg.norm(Phi[~Omega])",
        "torch.linalg.norm((W - Phi)[Omega]) / torch.linalg.norm(Phi[Omega])",
        {"q4": 2.0},
        "this is the error on the observed entries",
    ),
    Mistake(
        "step size of another unit",
        "    eta = 0.15 / (p * s ** (4 / 3))\n    eps = 0.01 * s ** (1 / 3)\n    Ws",
        "    eta = 0.15 / (p * 50 ** (4 / 3))\n    eps = 0.01 * s ** (1 / 3)\n    Ws",
        {"q4": 2.0},
        "do the step size and eps follow s?",
    ),
    Mistake(
        "hard-coded answer",
        "error = unseen_error(W_hat, Phi, Omega)",
        "error = 1e-6",
        {"q4": 1.0},
        "a number that was not measured",
    ),
    Mistake(
        "judged on the entries trained on",
        "errors.append((W - M)[held_out]",
        "errors.append((W - M)[train]",
        {"q5": 3.0},
        "errors on the entries trained on",
    ),
    Mistake(
        "trained on the entries set aside",
        "W = fit(M, train, k)",
        "W = fit(M, Omega, k)",
        {"q5": 3.0},
        "fit is given all observed entries",
    ),
]
