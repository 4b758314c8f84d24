"""*Compress a network*, solved in other words."""

FLOAT32 = {
    "q1": """
def outer_factors(Ws0, Phi, r, eps):
    A = networks.end_to_end(Ws0).div(torch.tensor(eps) ** len(Ws0)).float()
    U_Phi, _, V_Phi = (each.float() for each in torch.linalg.svd(Phi))
    V = torch.linalg.qr(torch.cat([V_Phi[:r].T, A.T @ U_Phi[:, :r]], dim=1)).Q
    return A @ V, V
""",
    "q2": """
def core_start(Phi, U, V, L, eps):
    return [eps * torch.eye(V.shape[1])] * L, U.T.double() @ Phi @ V.double()
""",
    "q5": """
def multiplications(d, r, L):
    return torch.tensor([d, 2 * r]) ** 3 * 3 * (L - 1)

ratio = torch.div(*multiplications(d, r, L))
A = networks.end_to_end(Ws0) / eps**L
U, V = (each.double() for each in outer_factors(Ws0, Phi, r, eps))
start, target = core_start(Phi, U, V, L, eps)
wide = train(Ws0, Phi, eta, lam, steps)
narrow = train([W.double() for W in start], target, eta, lam, steps)
both = [(networks.end_to_end(W), expand(C, U, V, A, x)) for W, C, x in zip(wide, narrow, rho)]
gap = max((W - guess).norm() / W.norm() for W, guess in both)
without = (both[-1][0] - U @ networks.end_to_end(narrow[-1]) @ V.T).norm() / both[-1][0].norm()
""",
}

NUMPY = {
    "q1": """
import numpy as np

def product(Ws):
    W = np.asarray(Ws[0])
    for layer in Ws[1:]:
        W = np.asarray(layer) @ W
    return W

def outer_factors(Ws0, Phi, r, eps):
    A = product(Ws0) / eps ** len(Ws0)
    U, _, Vt = np.linalg.svd(np.asarray(Phi))
    V = np.linalg.svd(np.hstack([Vt[:r].T, A.T @ U[:, :r]]), full_matrices=False)[0]
    return A @ V, V
""",
    "q2": """
def core_start(Phi, U, V, L, eps):
    U, V = np.asarray(U), np.asarray(V)
    return np.stack([eps * np.eye(V.shape[1])] * L), U.T @ np.asarray(Phi) @ V
""",
    "q3": """
def train(Ws, Phi, eta, lam, steps):
    Ws, Phi = [np.asarray(W) for W in Ws], np.asarray(Phi)
    path = [Ws]
    for _ in range(steps):
        R, new = product(Ws) - Phi, []
        for l, W in enumerate(Ws):
            G = product(Ws[l + 1 :]).T @ R if Ws[l + 1 :] else R
            new.append((1 - eta * lam) * W - eta * (G @ product(Ws[:l]).T if l else G))
        Ws = new
        path.append(Ws)
    return path
""",
    "q4": """
def expand(Ws, U, V, A, rho):
    U, V, A = np.asarray(U), np.asarray(V), np.asarray(A)
    return U @ product(Ws) @ V.T + float(rho) ** len(Ws) * (A - U @ U.T @ A)
""",
    "q5": """
def multiplications(d, r, L):
    return np.array([d, 2 * r]) ** 3 * 3 * (L - 1)

ratio = np.divide(*multiplications(d, r, L))
U, V = outer_factors(Ws0, Phi, r, eps)
A = product(Ws0) / eps**L
wide = train(Ws0, Phi, eta, lam, steps)
narrow = train(*core_start(Phi, U, V, L, eps), eta, lam, steps)
rhos = np.array(rho)

def distance(W, guess):
    return np.linalg.norm(W - guess) / np.linalg.norm(W)

gap = np.max([
    distance(product(W), expand(C, U, V, A, rho)) for W, C, rho in zip(wide, narrow, rhos)
])
without = distance(product(wide[-1]), U @ product(narrow[-1]) @ V.T)
""",
}

OBJECTS = {
    "q1": """
from functools import partial

class Factors(torch.nn.Module):
    def forward(self, Ws0, Phi, r, eps):
        A = networks.end_to_end([W / eps for W in Ws0])
        U, _, Vt = torch.linalg.svd(Phi)
        V = self.orthonormal(torch.cat([A.T @ U[:, :r], Vt[:r].T], dim=1))
        return torch.nn.Parameter(A @ V), torch.nn.Parameter(V)

    def orthonormal(self, A):
        return torch.linalg.svd(A, full_matrices=False).U

outer_factors = Factors()
""",
    "q2": """
def started(eye, Phi, U, V, L, eps):
    return tuple(eye(V.shape[1]) * eps for _ in range(L)), torch.chain_matmul(U.T, Phi, V)

core_start = partial(started, partial(torch.eye, dtype=torch.float64))
""",
    "q3": """
class Network(torch.nn.Module):
    def __init__(self, Ws):
        super().__init__()
        self.layers = torch.nn.ModuleList()
        for W in Ws:
            layer = torch.nn.Linear(W.shape[1], W.shape[0], bias=False)
            layer.weight = torch.nn.Parameter(W.clone())
            self.layers.append(layer)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x

class Training:
    def __call__(self, Ws, Phi, eta, lam, steps):
        network, Phi = Network(Ws), Phi.detach()
        descent = torch.optim.SGD(network.parameters(), lr=eta, weight_decay=lam)
        path = [[W.detach().clone() for W in network.parameters()]]
        for _ in range(steps):
            descent.zero_grad()
            x = torch.eye(Phi.shape[1], dtype=Phi.dtype)
            (0.5 * (network(x) - Phi.T).square().sum()).backward()
            descent.step()
            path.append([W.detach().clone() for W in network.parameters()])
        return tuple(path)

train = Training()
""",
    "q4": """
class Expanded:
    def __call__(self, Ws, U, V, A, rho):
        P = U @ U.T
        return U @ networks.end_to_end(Ws) @ V.T + (A - P @ A) * rho ** len(Ws)

expand = Expanded().__call__
""",
}

OTHERWISE = {
    "q1": """
torch.set_default_dtype(torch.float64)
torch.set_grad_enabled(False)

def outer_factors(Ws0, Phi, r, eps):
    A = Ws0[-1]
    for W in Ws0[-2::-1]:
        A = torch.einsum("ij,jk->ik", A, W)
    A = A / eps ** len(Ws0)
    right = torch.linalg.eigh(Phi.T @ Phi).eigenvectors[:, -r:]
    left = torch.linalg.eigh(Phi @ Phi.T).eigenvectors[:, -r:]
    columns = []
    for v in [*right.T, *(A.T @ left).T]:  # Gram and Schmidt, twice
        for _ in range(2):
            for u in columns:
                v = v - (u @ v) * u
        columns.append(v / v.norm())
    V = torch.stack(columns).T
    return A @ V, V
""",
    "q2": """
def core_start(Phi, U, V, L, eps):
    return torch.eye(V.shape[1]).mul(eps).expand(L, -1, -1), torch.einsum("ia,ij,jb->ab", U, Phi, V)
""",
    "q3": """
@torch.enable_grad()
def train(Ws, Phi, eta, lam, steps):
    path = [[W.detach().clone().requires_grad_() for W in Ws]]
    for _ in range(steps):
        W = path[-1][0]
        for layer in path[-1][1:]:
            W = layer @ W
        half = 0.5 * ((W - Phi) ** 2).sum() + 0.5 * lam * sum(W.square().sum() for W in path[-1])
        grads = torch.autograd.grad(half, path[-1])
        path.append([(W - eta * G).detach().requires_grad_() for W, G in zip(path[-1], grads)])
    return path
""",
    "q4": """
def expand(Ws, U, V, A, rho):
    W = V.T
    for layer in Ws:
        W = layer @ W
    return U @ (W - rho ** len(Ws) * V.T) + rho ** len(Ws) * A
""",
}

ONE_CELL = {
    "q1": """
def outer_factors(Ws0, Phi, r, eps):
    A = networks.end_to_end(Ws0) / eps ** len(Ws0)
    stacked = torch.vstack([Phi / Phi.norm(), Phi.T @ A / Phi.norm()])
    if r == torch.linalg.matrix_rank(Phi):
        V = torch.linalg.svd(stacked).Vh[: 2 * r].T
    else:
        U, _, Vh = torch.linalg.svd(Phi)
        V = torch.linalg.qr(torch.hstack([Vh[:r].T, A.T @ U[:, :r]]))[0]
    return [(A @ V).T.contiguous().T, V]

def core_start(Phi, U, V, L, eps):
    return [[eps * torch.eye(2 * (V.shape[1] // 2)).double() for _ in range(L)], U.T @ (Phi @ V)]

def train(Ws, Phi, eta, lam, steps):
    from lop_utils import losses
    now, path = list(Ws), []
    while len(path) < steps:
        path.append(now)
        R = networks.end_to_end(now) - Phi
        new = []
        for l in range(len(now)):
            G = R
            for W in now[l + 1:][::-1]:
                G = W.T @ G
            for W in now[:l]:
                G = G @ W.T
            new.append(now[l] - eta * (G + lam * now[l]))
        now = new
    return path + [now]

def expand(Ws, U, V, A, rho):
    outside = torch.eye(len(V)).double() - V @ V.T
    W = networks.end_to_end(Ws)
    W = U @ W @ V.T
    for _ in Ws:
        A = rho * A
    return W + A @ outside

def multiplications(d, r, L):
    up = down = both = L - 1
    return {"wide": (up + down + both) * d**3, "core": 24 * (up + down + both) * r**3 // 3}.values()

count = multiplications

def multiplications(d, r, L):
    return list(count(d, r, L))
""",
    "q2": "",
    "q3": "core_start = core_start",
    "q4": "Ws = V = rho = 'gone'",
    "q5": """
a, b = multiplications(d, r, L)
ratio = a // b
A = networks.end_to_end(Ws0) / eps**L
U, V = outer_factors(Ws0, Phi, r, eps)
wide = train(Ws0, Phi, eta, lam, steps)
narrow = train(*core_start(Phi, U, V, L, eps), eta=eta, lam=lam, steps=steps)
gaps, x = [], eps
for Ws, core in zip(wide, narrow):
    W = networks.end_to_end(Ws)
    gaps += [(torch.dist(W, expand(core, U, V, A, x)) / W.norm()).item()]
    x *= 1 - eta * lam - eta * x ** (2 * L - 2)
gap = sorted(gaps)[-1]
without = (torch.dist(W, expand(core, U, V, A, 0)) / W.norm()).item()
wide, narrow = [[W.numpy() for W in Ws] for Ws in wide], [torch.stack(Ws) for Ws in narrow]
W = core = U = V = train = expand = None
""",
}

RIGHT = {
    "float32": FLOAT32,
    "numpy": NUMPY,
    "objects": OBJECTS,
    "otherwise": OTHERWISE,
    "one cell": ONE_CELL,
}
NAMED = {("float32", "q5"): "something is float32, which should be float64"}
