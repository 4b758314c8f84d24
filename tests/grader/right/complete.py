"""*Complete a matrix*, solved in other words."""

FLOAT32 = {
    "q1": """
def loss_and_residual(Ws, M, Omega):
    W = torch.linalg.multi_dot(Ws[::-1]) if len(Ws) > 1 else Ws[0]
    R = torch.where(Omega, W - M, torch.zeros(1))
    return (0.5 * (R**2).sum()).float(), R
""",
    "q2": """
def surrogate(M, Omega):
    return torch.where(Omega, M, torch.zeros_like(M)) / Omega.float().mean()

def spectral_start(S, k, L, eps):
    U, _, V = torch.svd_lowrank(S, q=min(S.shape))
    return [eps * V[:, :k].T] + [torch.eye(k).to(S) * eps] * (L - 2) + [eps * U[:, :k]]
""",
    "q4": """
def unseen_error(W, Phi, Omega):
    rest = (~Omega).float()
    return (((W - Phi) * rest).norm() / (Phi * rest).norm()).float()

def complete(M, Omega, k, gamma, steps):
    p = Omega.float().mean()
    S = surrogate(M, Omega)
    s = torch.linalg.svdvals(S)[0]
    eta, eps = torch.tensor(0.15) / (p * s ** (4 / 3)), torch.tensor(0.01) * s ** (1 / 3)
    Ws = spectral_start(S, k, 3, eps)
    for _ in range(steps):
        Ws = step(Ws, M, Omega, eta, gamma)
    return Ws[2] @ Ws[1] @ Ws[0]

W_hat = complete(M, Omega, k=8, gamma=5.0, steps=1200)
error = unseen_error(W_hat, Phi, Omega)
""",
    "q5": """
def choose_width(fit, M, Omega, widths, generator):
    places = Omega.nonzero()
    aside = places[torch.randperm(len(places), generator=generator)[: round(len(places) / 10)]]
    train = Omega.clone()
    train[aside[:, 0], aside[:, 1]] = False
    held_out = Omega ^ train
    errors = torch.tensor([
        torch.nn.functional.mse_loss(fit(M, train, k)[held_out], M[held_out]) ** 0.5
        for k in torch.tensor(widths)
    ])
    return widths[errors.argmin()], errors.float()

best, errors = choose_width(fit, pixels, seen, widths, torch.Generator().manual_seed(2))
picture = (fit(pixels, seen, best) + grey).float()
""",
}

NUMPY = {
    "q1": """
import numpy as np

def loss_and_residual(Ws, M, Omega):
    product = np.asarray(Ws[0])
    for W in Ws[1:]:
        product = np.asarray(W) @ product
    R = np.where(Omega, product - np.asarray(M), 0)
    return np.sum(R**2) / 2, R
""",
    "q2": """
def surrogate(M, Omega):
    return np.where(Omega, M, 0.0) / np.mean(np.asarray(Omega))

def spectral_start(S, k, L, eps):
    U, _, Vt = np.linalg.svd(np.asarray(S))
    return (eps * Vt[:k], *[eps * np.identity(k)] * (L - 2), eps * U[:, :k])
""",
    "q3": """
def step(Ws, M, Omega, eta, gamma):
    Ws, L = [np.array(W) for W in Ws], len(Ws)
    R = loss_and_residual(Ws, M, Omega)[1]
    new = []
    for l in range(L):
        G = R
        for W in Ws[:l:-1]:
            G = W.T @ G
        for W in Ws[:l]:
            G = G @ W.T
        new.append(Ws[l] - (gamma * eta if l in (0, L - 1) else eta) * G)
    return new
""",
    "q4": """
def unseen_error(W, Phi, Omega):
    W, Phi, rest = np.asarray(W), np.asarray(Phi), ~np.asarray(Omega)
    return np.linalg.norm((W - Phi)[rest]) / np.linalg.norm(Phi[rest])

def complete(M, Omega, k, gamma, steps):
    p, S = np.mean(np.asarray(Omega)), surrogate(M, Omega)
    s = np.linalg.norm(S, 2)
    Ws = spectral_start(S, k, 3, 0.01 * s ** (1 / 3))
    for _ in range(steps):
        Ws = step(Ws, M, Omega, 0.15 / (p * s ** (4 / 3)), gamma)
    return np.linalg.multi_dot(Ws[::-1])

W_hat = complete(M, Omega, 10, 5.0, 1000)
error = unseen_error(W_hat, Phi, Omega)
""",
    "q5": """
def choose_width(fit, M, Omega, widths, generator):
    M, Omega = np.asarray(M), np.asarray(Omega)
    train = Omega & (torch.rand(*Omega.shape, generator=generator).numpy() < 0.9)
    held_out = Omega & ~train
    gaps = [fit(M, train, k) - M for k in widths]
    errors = np.array([np.sqrt(np.mean(gap[held_out] ** 2)) for gap in gaps])
    return np.array(widths)[errors.argmin()], errors

best, errors = choose_width(fit, pixels, seen, widths, torch.Generator().manual_seed(2))
picture = grey.numpy() + fit(pixels, seen, best)
""",
}

OBJECTS = {
    "q1": """
from functools import partial

class Loss(torch.nn.Module):
    def forward(self, Ws, M, Omega):
        R = torch.where(Omega, partial(torch.einsum, "ij,jk->ik")(Ws[-1], self.rest(Ws)) - M, 0.0)
        return {"loss": R.square().sum() / 2, "R": R}.values()

    def rest(self, Ws):
        W = torch.eye(Ws[0].shape[1], dtype=Ws[0].dtype)
        for layer in Ws[:-1]:
            W = layer @ W
        return W

class AsList:
    def __init__(self, function):
        self.function = function

    def __call__(self, *arguments):
        return list(self.function(*arguments))

loss_and_residual = AsList(Loss())
""",
    "q2": """
class Surrogate(torch.nn.Module):
    def forward(self, M, Omega):
        return torch.where(Omega, M, 0.0) * (Omega.numel() / Omega.sum())

def from_svd(svd, S, k, L, eps):
    U, _, Vt = svd(S)
    inner = (eps * torch.eye(k, dtype=S.dtype) for _ in range(L - 2))
    return [eps * Vt[:k], *inner, eps * U[:, :k]]

surrogate = Surrogate()
spectral_start = partial(from_svd, partial(torch.linalg.svd, full_matrices=False))
""",
    "q3": """
class Step:
    def __call__(self, Ws, M, Omega, eta, gamma):
        leaves = torch.nn.ParameterList(W.clone() for W in Ws)
        loss_and_residual(list(leaves), M, Omega)[0].backward()
        last = len(leaves) - 1
        rates = [gamma * eta if l in (0, last) else eta for l in range(last + 1)]
        return tuple(torch.nn.Parameter(W.data - rate * W.grad) for W, rate in zip(leaves, rates))

step = Step()
""",
    "q4": """
def apart(W, Phi, Omega, norm):
    return norm((W - Phi)[~Omega]) / norm(Phi[~Omega])

class Completion:
    def run(self, M, Omega, k, gamma, steps):
        S, p = surrogate(M, Omega), Omega.double().mean()
        s = torch.linalg.svdvals(S).max()
        Ws = spectral_start(S, k, 3, 0.01 * s ** (1 / 3))
        for _ in range(steps):
            Ws = step(Ws, M, Omega, 0.15 / (p * s ** (4 / 3)), gamma)
        return Ws[2] @ Ws[1] @ Ws[0]

unseen_error = partial(apart, norm=torch.linalg.norm)
complete = Completion().run
W_hat = torch.nn.Parameter(complete(M, Omega, 10, 5.0, 1000))
error = unseen_error(W_hat, Phi, Omega)
""",
    "q5": """
class Choice(torch.nn.Module):
    def forward(self, fit, M, Omega, widths, generator):
        train = Omega & torch.ones(Omega.shape).bernoulli(0.9, generator=generator).bool()
        held_out = Omega & ~train
        errors = {k: (fit(M, train, k) - M)[held_out].square().mean().sqrt() for k in widths}
        return min(errors, key=errors.get), list(errors.values())

choose_width = Choice()
best, errors = choose_width(fit, pixels, seen, widths, torch.Generator().manual_seed(2))
picture = grey + fit(pixels, seen, best)
""",
}

OTHERWISE = {
    "q1": """
torch.set_default_dtype(torch.float64)
torch.set_grad_enabled(False)

def loss_and_residual(Ws, M, Omega):
    W = Ws[-1]
    for layer in Ws[-2::-1]:
        W = W @ layer
    R = (W - M).masked_fill(~Omega, 0)
    return 0.5 * torch.einsum("ij,ij->", R, R), R.T.contiguous().T
""",
    "q2": """
def surrogate(M, Omega):
    S = torch.zeros(M.shape)
    S[Omega] = M[Omega] * Omega.numel() / Omega.sum()
    return S

def spectral_start(S, k, L, eps):
    s, V = torch.linalg.eigh(S.T @ S)
    V = V[:, -k:].flip(1)
    U = S @ V / (S @ V).norm(dim=0)
    return [eps * V.T, *torch.eye(k).mul(eps).expand(L - 2, k, k), eps * U]
""",
    "q3": """
@torch.enable_grad()
def step(Ws, M, Omega, eta, gamma):
    leaves = [W.detach().clone().requires_grad_() for W in Ws]
    loss, _ = loss_and_residual(leaves, M, Omega)
    grads = torch.autograd.grad(loss, leaves)
    rates = torch.full((len(Ws),), eta)
    rates[[0, -1]] *= gamma
    return [W - rate * G for W, rate, G in zip(leaves, rates, grads)]
""",
    "q4": """
def unseen_error(W, Phi, Omega):
    rest = 1.0 - Omega.double()
    return (torch.sum(rest * (W - Phi) ** 2) / torch.sum(rest * Phi**2)) ** 0.5

def complete(M, Omega, k, gamma, steps):
    S, p = surrogate(M, Omega), Omega.sum() / M.numel()
    s = torch.linalg.eigvalsh(S @ S.T)[-1].sqrt()
    Ws = spectral_start(S, k, 3, 0.01 * s ** (1 / 3))
    for _ in range(steps):
        Ws = step(Ws, M, Omega, 0.15 / (p * s ** (4 / 3)), gamma)
    return torch.einsum("ij,jk,kl->il", Ws[2], Ws[1], Ws[0])

W_hat = complete(M, Omega, k=10, gamma=5.0, steps=1000)
error = unseen_error(W_hat, Phi, Omega)
""",
}

ONE_CELL = {
    "q1": """
def product(Ws):
    W, *rest = Ws
    for layer in rest:
        W = layer @ W
    return W

def loss_and_residual(Ws, M, Omega):
    R = torch.nan_to_num(product(Ws) - M) * Omega
    return 0.5 * (R**2).sum().item(), R

def surrogate(M, Omega):
    return torch.nan_to_num(M) * Omega / Omega.double().mean()

def spectral_start(S, k, L, eps):
    U, _, Vh = torch.linalg.svd(S)
    Ws = [eps * torch.eye(k, dtype=torch.float64) for _ in range(L)]
    Ws[0] = Ws[0] @ Vh[:k, :]
    Ws[-1] = U[:, :k] @ Ws[-1]
    return Ws

def step(Ws, M, Omega, eta, gamma):
    R = loss_and_residual(Ws, M, Omega)[1]
    grads = []
    for l in range(len(Ws)):
        G = R
        if l + 1 < len(Ws):
            G = product(Ws[l + 1 :]).T @ G
        if l > 0:
            G = G @ product(Ws[:l]).T
        grads.append(G)
    for l, G in enumerate(grads):
        Ws[l:l+1] = [Ws[l] - eta * G * (gamma if l in (0, len(Ws) - 1) else 1)]
    return Ws
""",
    "q2": "",
    "q3": """
move = step

def step(Ws, M, Omega, eta, gamma):
    return move(list(Ws), M, Omega, eta, gamma)
""",
    "q5": """
def choose_width(fit, M, Omega, widths, generator):
    fold = torch.randint(0, 10, Omega.shape, generator=generator)
    train, test = Omega & (fold > 0), Omega & (fold == 0)
    errors, best = [], None
    for k in widths:
        errors.append(float(((fit(M=M, mask=train, k=k) - M)[test] ** 2).mean() ** 0.5))
        best = k if errors[-1] == min(errors) else best
    return [best, errors]

best, errors = choose_width(fit, pixels, seen, widths, torch.Generator().manual_seed(2))
W = fit(pixels, seen, best)
picture = (grey + W).tolist()
W_hat, error, Phi, surrogate, widths = None, "done", 3, len, {}
""",
}

RIGHT = {
    "float32": FLOAT32,
    "numpy": NUMPY,
    "objects": OBJECTS,
    "otherwise": OTHERWISE,
    "one cell": ONE_CELL,
}
NAMED = {}
