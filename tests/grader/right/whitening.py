"""*Whitening and invariant subspaces*, solved in other words."""

FLOAT32 = {
    "q1": """
def whiten(X):
    return torch.linalg.svd(X, full_matrices=False)[2].float()
""",
    "q2": """
def gradients(Ws, Phi):
    Ws, Phi = [W.float() for W in Ws], Phi.float()
    residual = (torch.linalg.multi_dot(Ws[::-1]) if len(Ws) > 1 else Ws[0]) - Phi
    found = []
    for l in range(len(Ws)):
        G = residual
        for W in Ws[:l:-1]:
            G = W.T @ G
        for W in Ws[:l]:
            G = G @ W.T
        found.append(G)
    return found
""",
    "q3": """
def quiet_basis(Ws0, Phi, r):
    A = torch.eye(len(Phi))
    for W in Ws0:
        A = (W / W[:, 0].norm()).float() @ A
    return torch.linalg.svd(torch.cat([Phi, Phi.T @ A.double()]).float())[2][2 * r :].T
""",
    "q4": """
def rho_path(eps, eta, lam, L, steps):
    path = [eps]
    for _ in range(steps):
        path.append(path[-1] * (1 - eta * lam - eta * path[-1] ** (2 * (L - 1))))
    return torch.tensor(path)
""",
    "q5": """
eta, lam, T = 0.05, 0.01, 1000
trained = Ws0
for _ in range(T):
    trained = [W - eta * (lam * W + G) for W, G in zip(trained, gradients(trained, Phi))]
V = quiet_basis(Ws0, Phi, r).double()
gap = (trained[0] @ V - rho_path(eps, eta, lam, L, T)[-1] / eps * Ws0[0] @ V).abs().max()
""",
}

NUMPY = {
    "q1": """
import numpy as np

def whiten(X):
    return np.linalg.qr(np.asarray(X).T)[0].T
""",
    "q2": """
def gradients(Ws, Phi):
    Ws = [np.asarray(W) for W in Ws]
    below, above = [np.eye(Ws[0].shape[1])], [np.eye(Ws[-1].shape[0])]
    for W, V in zip(Ws, Ws[::-1]):
        below.append(W @ below[-1])
        above.append(V.T @ above[-1])
    R = below[-1] - np.asarray(Phi)
    return tuple(above[len(Ws) - 1 - l] @ R @ below[l].T for l in range(len(Ws)))
""",
    "q3": """
def quiet_basis(Ws0, Phi, r):
    A, Phi = np.eye(Phi.shape[1]), np.asarray(Phi)
    for W in Ws0:
        A = np.asarray(W) @ A
    first, second = np.linalg.svd(Phi)[2][:r], np.linalg.svd(Phi.T @ A)[2][:r]
    return np.linalg.svd(np.vstack([first, second]))[2][: 2 * r - 1 : -1].T
""",
    "q4": """
def rho_path(eps, eta, lam, L, steps):
    path = np.empty(steps + 1)
    path[0] = eps
    for t in range(steps):
        path[t + 1] = (1 - eta * lam) * path[t] - eta * path[t] ** (2 * L - 1)
    return path
""",
    "q5": """
eta, lam, T = 0.05, 0.01, 1000
trained = [W.numpy() for W in Ws0]
for _ in range(T):
    trained = [(1 - eta * lam) * W - eta * G for W, G in zip(trained, gradients(trained, Phi))]
V = quiet_basis(Ws0, Phi, r)
gap = np.abs(trained[0] @ V - rho_path(eps, eta, lam, L, T)[-1] / eps * (Ws0[0].numpy() @ V)).max()
""",
}

OBJECTS = {
    "q1": """
from functools import partial

class Whitening(torch.nn.Module):
    def forward(self, X):
        U, s, Vt = torch.linalg.svd(X, full_matrices=False)
        return torch.nn.Parameter(U @ Vt)

whiten = Whitening()
""",
    "q2": """
class Gradients:
    def __call__(self, Ws, Phi):
        R = self.product(Ws, Phi.shape[1]) - Phi
        return [
            self.product(Ws[l + 1 :], len(W)).T @ R @ self.product(Ws[:l], Phi.shape[1]).T
            for l, W in enumerate(Ws)
        ]

    def product(self, Ws, width):
        W = torch.eye(width, dtype=torch.float64)
        for layer in Ws:
            W = layer @ W
        return W

gradients = Gradients()
""",
    "q3": """
class Basis:
    def find(self, decompose, Ws0, Phi, r):
        sent = Phi.T @ gradients.product([W / W.norm() for W in Ws0], Phi.shape[1])
        conditions = torch.cat([Phi / Phi.norm(), sent / sent.norm()])
        return decompose(conditions.T, mode="complete").Q[:, -self.count(Phi, r) :]

    def count(self, Phi, r):
        return Phi.shape[1] - 2 * r

def pivoted(A, mode):
    U, s, _ = torch.linalg.svd(A)
    return torch.linalg.qr(U, mode=mode)

quiet_basis = partial(Basis().find, pivoted)
""",
    "q4": """
def moved(step, eps, eta, lam, L, steps):
    path = torch.full((steps + 1, 1), eps, dtype=torch.float64, requires_grad=True)[:1]
    for _ in range(steps):
        path = torch.cat([path, step(path[-1:], eta, lam, L)])
    return path.flatten()

rho_path = partial(moved, lambda rho, eta, lam, L: rho - eta * rho * (lam + rho ** (2 * L - 2)))
""",
}

OTHERWISE = {
    "q1": """
torch.set_default_dtype(torch.float64)
torch.set_grad_enabled(False)

def whiten(X):
    R = torch.linalg.qr(X.T, mode="r").R
    return torch.linalg.solve_triangular(R.T, X, upper=False)
""",
    "q2": """
@torch.enable_grad()
def gradients(Ws, Phi):
    leaves = [W.detach().requires_grad_() for W in Ws]
    W = leaves[-1]
    for layer in leaves[-2::-1]:
        W = torch.einsum("ij,jk->ik", W, layer)
    return torch.autograd.grad((W - Phi).square().sum().div(2), leaves, create_graph=True)
""",
    "q3": """
def quiet_basis(Ws0, Phi, r):
    A = torch.eye(Phi.shape[1])
    for W in Ws0:
        A = W @ A
    A = A / A[:, 0].norm()
    G = Phi.T @ Phi + A.T @ (Phi @ Phi.T) @ A
    return torch.linalg.eigh(G).eigenvectors[:, : Phi.shape[1] - 2 * r]
""",
    "q4": """
def rho_path(eps, eta, lam, L, steps):
    return [eps] if steps == 0 else [eps, *rho_path(
        eps * (1 - eta * (lam + (eps * eps) ** (L - 1))), eta, lam, L, steps - 1
    )]
""",
    "q5": """
eta, lam, T = 0.05, 0.01, 1000
trained = torch.stack(Ws0)
for _ in range(T):
    trained = trained * (1 - eta * lam) - eta * torch.stack(gradients(list(trained), Phi))
V, rho = quiet_basis(Ws0, Phi, r), eps
for _ in range(T):
    rho *= 1 - eta * lam - eta * rho**4
gap = (trained[0] @ V - rho / eps * Ws0[0] @ V).abs().max()
""",
}

ONE_CELL = {
    "q1": """
def whiten(X):
    values, U = torch.linalg.eigh(X @ X.T)
    rough = (U / values.clamp(min=1e-9).sqrt()).T @ X
    U, _, Vt = torch.linalg.svd(rough, full_matrices=False)
    return torch.linalg.svd(X, full_matrices=False).Vh

def product(Ws, d):
    W = torch.eye(d).double()
    for layer in Ws:
        W = layer @ W
    return W

def gradients(Ws, Phi):
    gap, found = product(Ws, Phi.shape[1]) - Phi, {}
    for l, W in enumerate(Ws):
        found[l] = product(Ws[l + 1:], len(W)).T @ gap @ product(Ws[:l], Phi.shape[1]).T
    return [found[l] for l in sorted(found)]

def quiet_basis(Ws0, Phi, r):
    d = Phi.shape[1]
    A = product(Ws0, d)
    A /= torch.linalg.matrix_norm(A, 2)
    U, _, Vh = torch.linalg.svd(Phi)
    loud = torch.cat([Vh[:r].T, A.T @ U[:, :r]], 1)
    return torch.linalg.qr(torch.cat([loud, torch.eye(d).double()], 1)).Q[:, 2 * r : d]

def rho_path(eps, eta, lam, L, steps):
    path = torch.zeros(steps + 1, dtype=torch.float64)
    path[0] = eps
    for t in range(1, steps + 1):
        path[t] = path[t - 1] - eta * (lam * path[t - 1] + path[t - 1] ** (2 * L - 1))
    return path
""",
    "q2": "Ws, X = 1, 2",
    "q3": "",
    "q4": "",
    "q5": """
def train(Ws, steps, eta, lam):
    Ws = [W.clone() for W in Ws]
    for _ in range(steps):
        for W, G in zip(Ws, gradients(Ws, Phi)):
            W.mul_(1 - eta * lam).sub_(G, alpha=eta)
    return Ws

trained = train(Ws0, 1000, 0.05, 0.01)
V = quiet_basis(Ws0, Phi, r)
rho = rho_path(eps, 0.05, 0.01, L, 1000)[-1]
gap = float((trained[0] @ V - rho / eps * Ws0[0] @ V).abs().max())
Ws, Phi, V, gradients = None, None, None, None
""",
}

RIGHT = {
    "float32": FLOAT32,
    "numpy": NUMPY,
    "objects": OBJECTS,
    "otherwise": OTHERWISE,
    "one cell": ONE_CELL,
}
NAMED = {
    ("float32", "q4"): "rho: it is float32; wanted float64",
    ("float32", "q5"): "something is float32, which should be float64",
}
