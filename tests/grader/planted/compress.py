"""What students do wrong in *Compress a network*."""

from planted import Mistake

SPANNING = "    spanning = torch.cat([Vt_Phi[:r].T, A.T @ U_Phi[:, :r]], dim=1)\n"
BASIS = "    V = torch.linalg.qr(spanning).Q\n"
FACTORS = "    return A @ V, V\n"
CORE = """\
    eye = torch.eye(V.shape[1], dtype=Phi.dtype)
    return [eps * eye for _ in range(L)], U.T @ Phi @ V
"""
STEP = """\
        now = path[-1]
        path.append([(1 - eta * lam) * W - eta * G for W, G in zip(now, gradients(now))])
"""

MISTAKES = [
    Mistake(
        "r instead of 2r",
        SPANNING,
        "    spanning = Vt_Phi[:r].T\n",
        {"q1": 4.0, "q5": 2.0},
        "Training moves 2r directions",
    ),
    Mistake(
        "the target alone",
        SPANNING + BASIS,
        "    V = Vt_Phi[: 2 * r].T\n",
        {"q1": 3.0, "q5": 2.0},
        "the target alone does not decide",
    ),
    Mistake(
        "no orthonormal basis",
        BASIS,
        "    V = spanning\n",
        {"q1": 3.0, "q5": 2.0},
        "they are not orthogonal to each other",
    ),
    Mistake(
        "outer factors swapped",
        FACTORS,
        "    return V, A @ V\n",
        {"q1": 4.0, "q5": 2.0},
        "U and V are swapped: V is on the side of the inputs",
    ),
    Mistake(
        "left factor with a basis of its own",
        FACTORS,
        "    left = torch.cat([U_Phi[:, :r], A @ Vt_Phi[:r].T], dim=1)\n"
        "    return torch.linalg.qr(left).Q, V\n",
        {"q1": 1.0, "q5": 2.0},
        "each must be the image of its column of V",
    ),
    Mistake(
        "transposed target",
        "U.T @ Phi @ V",
        "V.T @ Phi.T @ U",
        {"q2": 2.0, "q5": 2.0},
        "this is V^T Phi^T U, the transpose",
    ),
    Mistake(
        "core of width r",
        CORE,
        "    r = V.shape[1] // 2\n"
        "    start = [eps * torch.eye(r, dtype=Phi.dtype) for _ in range(L)]\n"
        "    return start, torch.linalg.svdvals(Phi)[:r].diag()\n",
        {"q2": 2.0, "q5": 2.0},
        "the core has the width 2r",
    ),
    Mistake(
        "forgotten decay",
        STEP,
        STEP.replace("(1 - eta * lam) * W", "W"),
        {"q3": 4.0, "q5": 2.0},
        "the weight decay is forgotten",
    ),
    Mistake(
        "one layer after the other",
        STEP,
        "        now = list(path[-1])\n"
        "        for l in range(len(now)):\n"
        "            now[l] = (1 - eta * lam) * now[l] - eta * gradients(now)[l]\n"
        "        path.append(now)\n",
        {"q3": 4.0, "q5": 2.0},
        "the layers are updated one after the other",
    ),
    Mistake(
        "mean instead of sum",
        "back = below.pop() - Phi",
        "back = (below.pop() - Phi) / Phi.numel()",
        {"q3": 4.0, "q5": 2.0},
        "the gradient of a mean",
    ),
    Mistake(
        "trained in place",
        STEP,
        "        now = list(path[-1])\n"
        "        for W, G in zip(now, gradients(now)):\n"
        "            W.mul_(1 - eta * lam).sub_(eta * G)\n"
        "        path.append(now)\n",
        {"q3": 4.0, "q5": 1.0},
        "train changes its argument 1 in place",
    ),
    Mistake(
        "one network many times",
        "    path = [list(Ws)]\n    for _ in range(steps):\n" + STEP,
        "    path = [[W.clone() for W in Ws]]\n"
        "    for _ in range(steps):\n"
        "        now = path[-1]\n"
        "        for W, G in zip(now, gradients(now)):\n"
        "            W.mul_(1 - eta * lam).sub_(eta * G)\n"
        "        path.append(now)\n",
        {"q3": 3.0, "q5": 1.0},
        "every network of the path is the last one",
    ),
    Mistake(
        "forgotten rest",
        " + rho ** len(Ws) * rest",
        "",
        {"q4": 3.0, "q5": 1.0},
        "the second term is missing",
    ),
    Mistake(
        "rho without its power",
        "rho ** len(Ws)",
        "rho",
        {"q4": 3.0, "q5": 1.0},
        "each of the L layers contributes a factor",
    ),
    Mistake(
        "projector on the wrong side",
        "A - (A @ V) @ V.T",
        "A - V @ (V.T @ A)",
        {"q4": 3.0, "q5": 1.0},
        "the projector stands on the wrong side of A",
    ),
    Mistake(
        "hard-coded depth",
        "rho ** len(Ws)",
        "rho**2",
        {"q4": 2.0, "q5": 1.0},
        "the power of rho is 2; it is L",
    ),
    Mistake(
        "rho of the next step",
        "zip(wide, narrow, rho)",
        "zip(wide, narrow, rho[1:])",
        {"q5": 1.0},
        "rho of the next step",
    ),
    Mistake(
        "products by an identity counted",
        "3 * (L - 1)",
        "3 * L",
        {"q5": 1.0},
        "one of each kind is by an identity",
    ),
]
