"""What goes wrong in the project's one question that is graded by tests."""

from planted import Mistake

FOUND = "values = {seed: measure(seed) for seed in range(5)}"

MISTAKES = [
    Mistake(
        "draws from the global generator",
        "generator = torch.Generator().manual_seed(seed)",
        "generator = torch.default_generator.manual_seed(seed)",
        {"q1": 4.0},
        "draws from torch's global generator",
    ),
    Mistake(
        "another number at each call",
        "    return torch.linalg.svdvals(Ws[0])[3:-3].mean().item()",
        "    import random\n    return Ws[0].max().item() + 1e-9 * random.random()",
        {"q1": 4.0},
        "two calls with one seed give different numbers",
    ),
    Mistake(
        "typed-in values",
        FOUND,
        "values = {0: 0.96, 1: 0.95, 2: 0.94}",
        {"q1": 4.0},
        "measure(0): differs",
    ),
    Mistake(
        "tensors for numbers",
        FOUND,
        FOUND.replace("measure(seed)", "torch.tensor(measure(seed)).double()"),
        {"q1": 2.0},
        "a tensor becomes one by .item()",
    ),
    Mistake(
        "too few seeds",
        FOUND,
        FOUND.replace("range(5)", "range(2)"),
        {"q1": 6.0},
        "at least three seeds",
    ),
]
