# ruff: noqa: E501
"""Plant forty faults, one at a time, in a copy of the tree: the tests named beside each must fail.

usage: mutants.py [PART OF A FILE'S NAME...]
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIVE = "tests/book/test_live"

# The file, what stands there once, what is put in its place, and the tests that must see it.
FAULTS = [
    # The library
    ("lop_utils/_checks.py", "array.astype(plain", "array.astype(array.dtype", "tests/test_checks.py"),
    ("lop_utils/init.py", "torch.sign(R.diagonal())", "torch.ones_like(R.diagonal())", "tests/test_init.py"),
    ("lop_utils/networks.py", "* (2 / Z.shape[-2]) ** 0.5", "* (1 / Z.shape[-2]) ** 0.5", "tests/test_networks.py"),
    ("lop_utils/losses.py", "(W - Phi).mul_(mask)", "W - Phi", "tests/test_losses.py"),
    ("lop_utils/losses.py", "weight = self.N / self.batch", "weight = 1.0", "tests/test_losses_minibatches.py"),
    ("lop_utils/rules.py", "beta * M + G", "beta * M + (1 - beta) * G", "tests/test_rules.py"),
    ("lop_utils/_completing.py", "factor = shrink * factor", "factor = factor * 1", "tests/test_completing.py"),
    ("lop_utils/descent.py", "alpha=lam)", "alpha=2 * lam)", "tests/test_descent.py"),
    ("lop_utils/law.py", "torch.cat([Phi, Phi.T @ A])", "torch.cat([Phi, Phi @ A])", "tests/test_law.py"),
    ("lop_utils/law.py", "** (2 * (L - 1))", "** (2 * L)", "tests/test_law.py"),
    ("lop_utils/_wide.py", "d = B[l + 1, t, :p] + rate", "d = rate", "tests/test_mean_field.py"),
    ("lop_utils/compression.py", "\"rho\", rho)) ** len(Ws)", "\"rho\", rho)) ** (len(Ws) - 1)", "tests/test_compression.py"),
    ("lop_utils/spectra.py", "cosines**2 >= 0.5", "cosines**2 >= 2.0", "tests/test_spectra.py"),
    ("lop_utils/observed.py", "if len(twice):", "if len(twice) > len(rows):", "tests/test_observed.py"),
    ("lop_utils/_effects.py", "np.where(count, count + extra, 1.0)", "np.where(count, count, 1.0)", "tests/lop_book/test_ratings.py"),
    ("lop_utils/factored.py", "torch.index_select(R, 0, turn, out=turned)", "turned.copy_(R)", "tests/test_factored.py"),
    ("lop_utils/_completing.py", "now.error < 0.999 * best.error", "True", "tests/test_completion.py"),
    ("lop_utils/_starting.py", "Ws[0][:, torch.bincount(train.cols, minlength=d_x) == 0] = 0", "pass", "tests/test_completion.py"),
    ("lop_utils/features.py", "centred.square().sum(-2) @ shares", "centred.square().sum(-2).mean(-1)", "tests/test_features.py"),
    ("lop_utils/readouts.py", ".sum((-2, -1)) / K", ".sum((-2, -1)) / (K - 1)", "tests/test_readouts.py"),
    ("lop_utils/data.py", "U[:, :k].T / s[:k, None]", "U[:, :k].T * s[:k, None]", "tests/test_data.py"),
    ("lop_utils/_files.py", "draft.unlink(missing_ok=True)", "pass", "tests/test_files.py"),
    # What only the book needs
    ("lop_utils/book/claims.py", "math.isfinite(result.measured)", "True", "tests/lop_book/test_claims.py"),
    ("lop_utils/book/answers.py", "-wanted", "wanted", "tests/lop_book/test_answers.py"),
    ("lop_utils/book/cost.py", "work.fetches * machine.fetch", "machine.fetch", "tests/lop_book/test_cost.py"),
    # The extension
    ("_ext/lop_claims.py", 'for claim in env.metadata[docname].get("claims", ()):', "for claim in ():", "tests/test_extension.py"),
    ("_ext/lop_book.py", 'root.glob("lop_utils/**/*.py")', 'root.glob("lop_utils/*.none")', "tests/test_extension.py tests/test_execution.py"),
    ("_ext/lop_book.py", "if exception or app._warncount:", "if exception:", "tests/test_extension.py"),
    ("_ext/lop_symbols.py", "row[\"ids\"].append(anchor)", "pass", "tests/test_extension.py tests/test_site.py"),
    ("_ext/lop_site.py", "name.lower() == pages", "False", "tests/test_site.py"),
    ("_ext/lop_cite.py", "f\"{{{x['name']}}}\" if", "x['name'] if", "tests/test_site.py"),
    # The live figures
    ("book/_figures/numbers.js", "if (i === j) R[i * k + i] = Math.sqrt(Math.max(sum, 0));", "if (i === j) R[i * k + i] = Math.max(sum, 0);", f"{LIVE}_law.py"),
    ("book/_figures/numbers.js", "const c = 1 / Math.sqrt(1 + t * t), s = c * t;", "const c = 1, s = t;", f"{LIVE}_law.py"),
    ("book/_figures/completion.js", "Q[i] -= outerEta * RB[i];", "Q[i] -= eta * RB[i];", f"{LIVE}_completion.py"),
    ("book/_figures/cost.js", "memory: (3 * L + 2) * d * d * size", "memory: (2 * L + 2) * d * d * size", f"{LIVE}_cost.py"),
    ("book/_figures/features.js", "network.compression(l) / scatter", "network.compression(l)", f"{LIVE}_features.py"),
    # The grader
    ("tools/grading/handed_in.py", "if not stat.S_ISREG(os.fstat(number).st_mode):", "if False:", "tests/grader/test_grade.py"),
    ("tools/grading/judge.py", "text, shown = \": \".join(error.args), error.args[0]", "text = shown = \": \".join(error.args)", "tests/grader/test_judge.py"),
    ("tools/grading/report.py", 'startswith(("=", "+", "-", "@"))', 'startswith("never")', "tests/grader/test_grade.py"),
    ("tools/grading/worker.py", 'return "memory" if memory > most', 'return "memory" if False', "tests/grader/test_walls.py"),
    ("tools/grading/wire.py", "== math.prod(shape) * width", "", "tests/grader/test_judge.py"),
]  # fmt: skip


def copied(folder):
    """Copy what git tracks or would track."""
    listed = subprocess.check_output(["git", "ls-files", "-zco", "--exclude-standard"], cwd=ROOT)
    for name in filter(None, listed.decode().split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def caught(fault):
    """Plant one fault in a copy of its own; return what the tests said, and the seconds."""
    name, right, wrong, tests = fault
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        path = copied(Path(folder)) / name
        text = path.read_text(encoding="utf-8")
        if text.count(right) != 1:
            return f"NOT THERE ONCE: {right}", 0.0
        path.write_text(text.replace(right, wrong), encoding="utf-8")
        words = [sys.executable, "-m", "pytest", "-xq", "-p", "no:cacheprovider", *tests.split()]
        more = {"PYTHONPATH": folder, "OMP_NUM_THREADS": "1"}
        try:
            done = subprocess.run(
                words, cwd=folder, env=os.environ | more, capture_output=True, text=True, timeout=300
            )
        except subprocess.TimeoutExpired:
            return "caught: it never ends", time.monotonic() - started
    said = done.stdout.strip().splitlines()[-1:] or ["nothing"]
    word = "caught" if done.returncode == 1 else "SURVIVED"
    return f"{word}: {said[0]}", time.monotonic() - started


def main(parts):
    """Try all faults, or those in files whose name has one of the parts; return how many stay."""
    faults = [each for each in FAULTS if not parts or any(part in each[0] for part in parts)]
    with ThreadPoolExecutor(2) as pool:
        missed = 0
        for fault, (said, seconds) in zip(faults, pool.map(caught, faults), strict=True):
            missed += not said.startswith("caught")
            print(f"{fault[0]:<32} {seconds:5.0f} s  {said}", flush=True)
    print(f"{len(faults) - missed} of {len(faults)} faults were caught")
    return missed


if __name__ == "__main__":
    sys.exit(bool(main(sys.argv[1:])))
