"""*Measure a representation*, solved in other words."""

FLOAT32 = {
    "q1": """
def class_means(Z, y):
    members = torch.nn.functional.one_hot(y).float()
    return Z.float() @ members / members.sum(0)

def scatter_traces(Z, y):
    Z = Z.float()
    centres = class_means(Z, y)
    return torch.stack([
        ((Z - centres[:, y]) ** 2).sum(), ((centres[:, y] - Z.mean(1)[:, None]) ** 2).sum()
    ]) / len(y)
""",
    "q2": """
def compression(Z, y):
    return torch.div(*scatter_traces(Z, y))

def zero_point(sizes):
    sizes = torch.tensor(sizes, dtype=torch.float32)
    return (sizes.sum() - len(sizes)) / (len(sizes) - 1)
""",
    "q3": """
def separation(Z, y):
    means = class_means(Z, y).T
    cosines = torch.nn.functional.cosine_similarity(means[:, None], means[None], dim=-1)
    return 1 - cosines.fill_diagonal_(-1).max()
""",
    "q4": """
def hidden_features(Ws, X):
    found = [X.float()]
    for W in Ws[:-1]:
        found.append(W.float() @ found[-1])
    return found

def decay_factor(C):
    l = torch.arange(len(C)).float()
    return torch.exp(torch.cov(torch.stack([l, C.log()]))[0, 1] / l.var())
""",
    "q5": """
def predicted_factor(eps, n, L, s):
    return torch.tensor(eps) ** 2 * (torch.tensor(s) ** 2 / n) ** (1 / L)

measured = []
for L, eps, s in settings:
    Zs = hidden_features(train(L, eps, s), s * X)
    measured.append(decay_factor(torch.tensor([compression(Z, y).item() for Z in Zs])))
""",
}

NUMPY = {
    "q1": """
import numpy as np

def class_means(Z, y):
    Z, y = np.asarray(Z), np.asarray(y)
    return np.array([Z[:, y == k].mean(axis=1) for k in np.unique(y)]).T

def scatter_traces(Z, y):
    Z, y = np.asarray(Z), np.asarray(y)
    within = sum((y == k).sum() * Z[:, y == k].var(axis=1).sum() for k in np.unique(y)) / len(y)
    return np.array([within, Z.var(axis=1).sum() - within])
""",
    "q2": """
def compression(Z, y):
    return np.divide(*scatter_traces(Z, y))

def zero_point(sizes):
    return np.sum(np.array(sizes) - 1) / (len(sizes) - 1)
""",
    "q3": """
def separation(Z, y):
    M = class_means(Z, y)
    cosines = np.corrcoef(np.vstack([M, -M]).T) # mean zero, the same cosines
    return np.min(1 - cosines[np.triu_indices(len(cosines), k=1)])
""",
    "q4": """
def hidden_features(Ws, X):
    found = [np.asarray(X)]
    for W in Ws[:-1]:
        found.append(np.asarray(W) @ found[-1])
    return tuple(found)

def decay_factor(C):
    return np.exp(np.polyfit(np.arange(len(C)), np.log(np.asarray(C)), 1)[0])
""",
    "q5": """
def predicted_factor(eps, n, L, s):
    return np.square(eps) * np.power(s * s / n, 1 / L)

measured = np.array([
    decay_factor([compression(Z, y) for Z in hidden_features(train(L, eps, s), s * X)])
    for L, eps, s in settings
])
""",
}

OBJECTS = {
    "q1": """
from functools import partial

class Means(torch.nn.Module):
    def forward(self, Z, y):
        sums = torch.zeros(len(Z), int(y.max()) + 1, dtype=Z.dtype).index_add(1, y, Z)
        return torch.nn.Parameter(sums / torch.bincount(y))

class Traces:
    def __init__(self, means):
        self.means = means

    def __call__(self, Z, y):
        off = torch.stack([Z - self.means(Z, y)[:, y], self.means(Z, y)[:, y] - Z.mean(1, True)])
        return off.square().sum(dim=(1, 2)).div(len(y)).unbind()

class_means = Means()
scatter_traces = Traces(class_means)
""",
    "q2": """
def ratio(traces, Z, y):
    within, between = traces(Z, y)
    return within.item() / between.item()

compression = partial(ratio, scatter_traces)
zero_point = type("ZeroPoint", (), {"__call__": lambda self, n: (sum(n) - len(n)) / (len(n) - 1)})()
""",
    "q3": """
class Separation(torch.nn.Module):
    def forward(self, Z, y):
        U = torch.nn.functional.normalize(class_means(Z, y), dim=0)
        return (1 - torch.pdist(U.T).square().min().mul(-0.5).add(1)).requires_grad_()

separation = Separation().forward
""",
    "q4": """
class Hidden(torch.nn.Module):
    def forward(self, Ws, X):
        layers = torch.nn.Sequential(*(torch.nn.Linear(*W.T.shape, bias=False) for W in Ws[:-1]))
        for layer, W in zip(layers, Ws):
            layer.weight = torch.nn.Parameter(W)
        outputs = [X.T]
        for layer in layers:
            outputs.append(layer(outputs[-1]))
        return [Z.T for Z in outputs]

class Line:
    def factor(self, C):
        A = torch.vander(torch.arange(len(C), dtype=C.dtype), N=2)
        return torch.linalg.lstsq(A, C.log().unsqueeze(1)).solution[0].exp().squeeze()

hidden_features, decay_factor = Hidden(), Line().factor
""",
}

OTHERWISE = {
    "q1": """
torch.set_default_dtype(torch.float64)
torch.set_grad_enabled(False)

def class_means(Z, y):
    K = int(y.max()) + 1
    means = torch.zeros(K, len(Z))
    for k in range(K):
        for i in (y == k).nonzero().flatten().tolist():
            means[k] += Z[:, i]
        means[k] /= (y == k).sum()
    return means.T

def scatter_traces(Z, y):
    members = torch.nn.functional.one_hot(y).double()
    n = members.sum(0)
    G = Z.T @ Z  # of inner products alone
    total = G.trace() / len(y) - G.mean()
    between = torch.einsum("ik,ij,jk,k->", members, G, members, 1 / n) / len(y) - G.mean()
    return total - between, between
""",
    "q2": """
def compression(Z, y):
    total = (Z - Z.mean(1, keepdim=True)).square().sum()
    between = 0.0
    for k in y.unique():
        between += (y == k).sum() * (Z[:, y == k].mean(1) - Z.mean(1)).square().sum()
    return total / between - 1

def zero_point(sizes):
    N = sum(sizes)
    within = sum(n * (1 - 1 / n) for n in sizes) / N
    return within / (sum(n / n for n in sizes) / N - 1 / N)
""",
    "q3": """
def separation(Z, y):
    means, best = class_means(Z, y), torch.tensor(torch.inf)
    for k in range(means.shape[1]):
        for j in range(k):
            a, b = means[:, k], means[:, j]
            best = torch.minimum(best, 1 - a.dot(b) / (a.dot(a) * b.dot(b)) ** 0.5)
    return best
""",
    "q4": """
def hidden_features(Ws, X):
    def product(Ws):
        W = torch.eye(len(X))
        for layer in Ws:
            W = layer @ W
        return W
    return [product(Ws[:l]) @ X for l in range(len(Ws))]

def decay_factor(C):
    with torch.enable_grad():
        a, b = torch.zeros(2, requires_grad=True).unbind()
        def error(a, b):
            return (a + b * torch.arange(len(C)) - C.log()).square().sum()
        rows = torch.autograd.functional.hessian(error, (a, b))
        H = torch.stack([torch.stack(row) for row in rows])
        g = torch.stack(torch.autograd.functional.jacobian(error, (a, b)))
    return (-torch.linalg.solve(H, g)[1]).exp()
""",
}

ONE_CELL = {
    "q1": """
import math

def class_means(Z, y):
    return torch.stack([Z.T[y == k].mean(0) for k in sorted(set(y.tolist()))]).T

def scatter_traces(Z, y):
    mu, W, B = class_means(Z, y), 0, 0
    for k in range(mu.shape[1]):
        Zk = Z[:, y == k]
        W += torch.trace((Zk - mu[:, [k]]).T @ (Zk - mu[:, [k]])).item() / len(y)
        B += Zk.shape[1] * (mu[:, k] - Z.mean(1)).norm().item() ** 2 / len(y)
    return [W, B]

def compression(Z, y):
    W, B = scatter_traces(Z, y)
    return W / B

def zero_point(sizes):
    N, K = sum(sizes), len(sizes)
    return N / (K - 1) - K / (K - 1)

def separation(Z, y):
    mu = class_means(Z, y)
    mu = mu / (mu * mu).sum(0).sqrt()
    C = (mu.T @ mu).tolist()
    return 1 - max(C[i][j] for i in range(len(C)) for j in range(len(C)) if i != j)

def hidden_features(Ws, X):
    Z, found = X, []
    for W in Ws:
        found, Z = found + [Z], W @ Z
    return found

def decay_factor(C):
    heights, n = [math.log(c) for c in C], len(C)
    mean = sum(range(n)) / n
    top = sum((l - mean) * h for l, h in enumerate(heights))
    return math.exp(top / sum((l - mean) ** 2 for l in range(n)))
""",
    "q2": "",
    "q3": "sizes = C = None",
    "q4": "",
    "q5": """
def predicted_factor(eps, n, L, s):
    return math.exp(2 * math.log(eps) + (2 * math.log(s) - math.log(n)) / L)

measured = {}
for L, eps, s in settings:
    Zs = hidden_features(train(L, eps, s), s * X)
    measured[L, s] = decay_factor([float(compression(Z, y)) for Z in Zs])
measured = list(measured.values())
train, X, y, compression, K = None, None, None, None, 0
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
