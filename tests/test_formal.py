"""The formal proof is accepted, uses no axiom, and fails when a sign of it is changed."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROOF = (ROOT / "formal" / "law.v").read_text(encoding="utf-8")
THEOREMS = re.findall(r"^Theorem (\w+)", PROOF, re.M)

pytestmark = pytest.mark.skipif(
    shutil.which("coqc") is None and "CI" not in os.environ, reason="Coq is not installed"
)


def coq(folder, text):
    (folder / "law.v").write_text(text, encoding="utf-8")
    command = ["coqc", "-q", "-w", "none", "-noglob", "law.v"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def test_every_theorem_is_proved_without_axioms(tmp_path):
    asked = "".join(f"Print Assumptions {name}.\n" for name in THEOREMS)
    done = coq(tmp_path, PROOF + asked)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["Closed under the global context"] * len(THEOREMS)


def test_the_page_of_claims_names_theorems():
    page = (ROOT / "book" / "appendix" / "claims.md").read_text(encoding="utf-8")
    named = re.findall(r"(?<!})`([a-z_0-9]+)`", page)
    assert named and set(named) <= set(THEOREMS)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("*: W t l - eta *: gradient (W t)", "*: W t l + eta *: gradient (W t)"),
        ("*: V t - eta *: gradient_last", "*: V t + eta *: gradient_last"),
        ("(1 - eta * lam) *: W t l", "(1 + eta * lam) *: W t l"),
        ("lam - eta * others (rho t)", "lam + eta * others (rho t)"),
        ("- eta * rho t ^+ (2 * m))) ->\n    chain", "- eta * rho t ^+ m)) ->\n    chain"),
        ("eps * (1 - eta * lam) ^+ t) 0", "eps * (1 + eta * lam) ^+ t) 0"),
        ("Phi *m v 0 = 0 /\\ Phi^T *m w = 0", "Phi *m v 0 = 0"),
        ("(d - 2 * \\rank Phi <=", "(d - \\rank Phi <="),
        ("end_to_end W V - Phi.", "end_to_end W V + Phi."),
    ],
)
def test_a_changed_sign_is_refused(tmp_path, right, wrong):
    assert right in PROOF
    done = coq(tmp_path, PROOF.replace(right, wrong, 1))
    assert done.returncode != 0
    assert "Error" in done.stderr
