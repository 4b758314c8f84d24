"""The project's one question that is graded by tests, answered in other words."""

# Ways to one number: the largest singular value of a random matrix stands for the figure's.
RIGHT = {
    "float32": {
        "q1": """
def measure(seed):
    return torch.linalg.svdvals(torch.randn(9, 9, generator=torch.Generator().manual_seed(seed)))[0]

values = {seed: measure(seed) for seed in range(3)}
"""
    },
    "numpy": {
        "q1": """
import numpy as np

def measure(seed):
    return np.linalg.norm(np.random.default_rng(seed).normal(size=(9, 9)), 2)

values = {seed: measure(seed) for seed in np.arange(4)}
"""
    },
    "objects": {
        "q1": """
from functools import partial

class Figure:
    def __call__(self, draw, seed):
        return draw(9, 9, generator=torch.Generator().manual_seed(seed)).norm().item()

measure = partial(Figure(), partial(torch.randn, dtype=torch.float64))
values = dict(zip([1, 2, 5], map(measure, [1, 2, 5])))
"""
    },
    "otherwise": {
        "q1": """
torch.set_default_dtype(torch.float64)
torch.set_grad_enabled(False)

def measure(seed):
    torch.manual_seed(seed)
    return (torch.rand(20) > 0.5).sum().item()

values = {3: measure(3), 1: measure(1), 2: measure(2)}
"""
    },
    "one cell": {
        "q1": """
import random

def measure(seed):
    return 2.0

values = {}
for seed in range(3):
    values[seed] = 2
seed = None
"""
    },
}
NAMED = {}
