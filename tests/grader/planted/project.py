"""What goes wrong in the project's one question that is graded by tests."""

from planted import Mistake

FOUND = "values = {seed: measure(seed) for seed in range(5)}"

MISTAKES = [
    Mistake(
        "another number at each call",
        "    return torch.linalg.svdvals(Ws[0])[3:-3].mean().item()",
        "    import random\n    return Ws[0].max().item() + 1e-3 * random.random()",
        {"q1": 4.0},
        "pass generator= to everything that draws",
    ),
    Mistake(
        "typed-in values",
        FOUND,
        "values = {0: 0.96, 1: 0.95, 2: 0.94}",
        {"q1": 4.0},
        "values[0]: differs",
    ),
    Mistake(
        "vectors for numbers",
        FOUND,
        FOUND.replace("measure(seed)", "[measure(seed)]"),
        {"q1": 6.0},
        "values[0]: wanted a number, got shape (1,)",
    ),
    Mistake(
        "too few seeds",
        FOUND,
        FOUND.replace("range(5)", "range(2)"),
        {"q1": 6.0},
        "at least three seeds",
    ),
]
