"""*SGD's rank*, solved in other words."""

FLOAT32 = {
    "q1": """
def stacked(W1, W2):
    return torch.cat([W1.T, W2]).float()

def step_matrix(G):
    k, p = G.shape
    return -torch.block_diag(G, G.T).float().roll(p, 0)
""",
    "q2": """
def log_det_change(G, eta):
    return 2 * torch.log1p(-(eta * torch.linalg.svdvals(G.float())) ** 2).sum()
""",
    "q3": """
def descend(W1, W2, gradient, eta, steps):
    W1, W2, path = W1.float(), W2.float(), [torch.zeros(())]
    for _ in range(steps):
        G = gradient(W2 @ W1)
        path.append(path[-1] + log_det_change(G, eta))
        W1, W2 = W1 - eta * W2.T @ G, W2 - eta * G @ W1.T
    return W1, W2, path
""",
    "q4": """
def predicted_slope(X, k, eta, delta, batch):
    return -2 * k * (eta * delta * X.float().norm()) ** 2 * (X.shape[1] / batch)
""",
    "q5": """
runs = [descend(W1, W2, lambda W: G(W.double()).float(), eta, steps) for G in (calm, noisy(1))]
paths = [torch.stack(path) for _, _, path in runs]
ends = [end for end, _, _ in runs]
slope = paths[1][5000:].diff().mean()
ranks = [torch.linalg.matrix_rank(end, rtol=0.01) for end in ends]
""",
}

NUMPY = {
    "q1": """
import numpy as np

def stacked(W1, W2):
    return np.vstack([np.asarray(W1).T, W2])

def step_matrix(G):
    G = np.asarray(G)
    k, p = G.shape
    return np.block([[np.zeros((p, p)), -G.T], [-G, np.zeros((k, k))]])
""",
    "q2": """
def log_det_change(G, eta):
    s = np.linalg.svd(np.asarray(G), compute_uv=False)
    return 2 * np.log1p(-np.square(eta * s)).sum()
""",
    "q3": """
def descend(W1, W2, gradient, eta, steps):
    W1, W2, path = np.asarray(W1), np.asarray(W2), np.zeros(steps + 1)
    for t in range(steps):
        G = np.asarray(gradient(W2 @ W1))
        path[t + 1] = path[t] + log_det_change(G, eta)
        W1, W2 = W1 - eta * W2.T @ G, W2 - eta * G @ W1.T
    return W1, W2, path
""",
    "q4": """
def predicted_slope(X, k, eta, delta, batch):
    X = np.asarray(X)
    return -2 * (eta * delta) ** 2 * k / batch * X.shape[1] * np.sum(X**2)
""",
    "q5": """
runs = [
    descend(W1, W2, lambda W: gradient(torch.from_numpy(W)), eta, steps)
    for gradient in (calm, noisy(1))
]
paths = np.stack([run[2] for run in runs])
ends = np.stack([run[0] for run in runs])
slope = np.diff(paths[1])[5000:].mean()
ranks = np.linalg.matrix_rank(ends, rtol=0.01)
""",
}

OBJECTS = {
    "q1": """
from functools import partial

class Stacked(torch.nn.Module):
    def forward(self, W1, W2):
        return torch.nn.Parameter(torch.vstack([W1.T, W2]))

stacked = Stacked()
class J:
    def __init__(self, sign):
        self.sign = sign

    def __call__(self, G):
        k, p = G.shape
        upper = torch.hstack([G.new_zeros(p, p), self.sign * G.T])
        return torch.vstack([upper, torch.hstack([self.sign * G, G.new_zeros(k, k)])])

step_matrix = J(-1)
""",
    "q2": """
def change(values, G, eta):
    return torch.log1p(-values(eta * G).square()).sum().mul(2).requires_grad_()

log_det_change = partial(change, torch.linalg.svdvals)
""",
    "q3": """
class Network(torch.nn.Module):
    def __init__(self, W1, W2):
        super().__init__()
        self.first, self.second = (torch.nn.Parameter(W.clone()) for W in (W1, W2))

    def forward(self):
        return self.second @ self.first

class Descent:
    def __call__(self, W1, W2, gradient, eta, steps):
        network, path = Network(W1, W2), [0.0]
        descent = torch.optim.SGD(network.parameters(), lr=eta)
        for _ in range(steps):
            W = network()
            G = torch.as_tensor(gradient(W.detach()))
            descent.zero_grad()
            W.backward(G)
            descent.step()
            path.append(path[-1] + log_det_change(G, eta).item())
        return [*network.parameters(), path]

descend = Descent()
""",
    "q4": """
class Slope:
    def of(self, X, k, eta, delta, batch):
        weight = X.shape[1] / batch
        drawn = batch / X.shape[1]
        return weight**2 * drawn * self.leading(eta) * k * delta**2 * (X @ X.T).trace()

    def leading(self, eta):
        return -2 * eta**2

predicted_slope = Slope().of
""",
}

OTHERWISE = {
    "q1": """
torch.set_default_dtype(torch.float64)
torch.set_grad_enabled(False)

def stacked(W1, W2):
    return torch.cat([W1, W2.mT], dim=1).mT

def step_matrix(G):
    J = torch.zeros(sum(G.shape), sum(G.shape))
    J[G.shape[1] :, : G.shape[1]] = G
    return -(J + J.T)
""",
    "q2": """
def log_det_change(G, eta):
    small = min(G @ G.T, G.T @ G, key=len)
    return 2 * torch.log1p(-(eta**2) * torch.linalg.eigvalsh(small)).sum()
""",
    "q3": """
def descend(W1, W2, gradient, eta, steps):
    Theta, p, changes = stacked(W1, W2), W1.shape[1], torch.zeros(steps + 1)
    for t in range(steps):
        G = gradient(Theta[p:] @ Theta[:p].T)
        changes[t + 1] = log_det_change(G, eta)
        Theta = Theta + eta * step_matrix(G) @ Theta
    return Theta[:p].T, Theta[p:], changes.cumsum(0)
""",
    "q4": """
def predicted_slope(X, k, eta, delta, batch):
    p, N = X.shape
    per_sample = X.square().sum(0).mean()
    return -2 * (N * eta) ** 2 / batch * delta**2 * k * per_sample
""",
    "q5": """
def both(gradient):
    V1, V2, path = descend(W1, W2, gradient, eta, 5000)
    V1, V2, more = descend(V1, V2, gradient, eta, 10_000)
    return V1, torch.cat([path, path[-1] + more[1:]])

(calm_end, calm_path), (noisy_end, noisy_path) = both(calm), both(noisy(7))
paths, ends = (calm_path, noisy_path), torch.stack([calm_end, noisy_end])
slope = torch.mean(noisy_path[5001:] - noisy_path[5000:-1])
ranks = torch.linalg.matrix_rank(ends, rtol=1e-2)
""",
}

ONE_CELL = {
    "q1": """
def stacked(W1, W2):
    return torch.stack([*W1.T, *W2])

def step_matrix(G):
    k, p = G.shape
    rows = [[0.0] * p + [-g for g in column] for column in G.T.tolist()]
    rows += [[-g for g in row] + [0.0] * k for row in G.tolist()]
    return rows

def log_det_change(G, eta):
    total = 0.0
    for s in torch.linalg.svd(G)[1]:
        total += torch.log1p(-(eta * s * eta * s)).item()
    return total + total

def descend(W1, W2, gradient, eta, steps):
    W1, W2 = W1.clone(), W2.clone()
    path = torch.zeros(steps + 1).double()
    for t in range(steps):
        G = gradient(W2 @ W1)
        down = W2.T @ G
        W2 -= eta * G @ W1.T
        W1 -= eta * down
        path[t + 1 :] += log_det_change(G, eta)
    return {"W1": W1, "W2": W2, "path": path}.values()

run = descend

def descend(*given):
    return tuple(run(*given))

def predicted_slope(X, k, eta, delta, batch):
    total = 0
    for x in X.T:
        total += k * (x @ x)
    return -(2 * eta**2) * (delta * delta * total) * (len(X.T) / batch)
""",
    "q2": "",
    "q3": "log_det = None",
    "q4": "W1 = W2 = J = 'gone'",
    "q5": """
generator = torch.Generator().manual_seed(0)
X, beta = draw(p, N), draw(k, p)
start = draw(w, p), draw(k, w)
Y = beta @ X
quiet = descend(*start, calm, eta, steps)
loud = descend(*start, noisy(3), eta, steps)
paths, ends = [quiet[2].tolist(), loud[2].tolist()], [quiet[0], loud[0].numpy()]
slope = (paths[1][15_000] - paths[1][5_000]) / 1e4
ranks = []
for end in ends:
    s = torch.linalg.svdvals(torch.as_tensor(end))
    ranks.append(sum(1.0 for each in s if each > s.max() / 100))
X = Y = W1 = W2 = descend = calm = noisy = None
""",
}

RIGHT = {
    "float32": FLOAT32,
    "numpy": NUMPY,
    "objects": OBJECTS,
    "otherwise": OTHERWISE,
    "one cell": ONE_CELL,
}
NAMED = {("float32", "q3"): "it is float32; wanted float64"}
