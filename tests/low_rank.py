"""Matrices of known singular values, from nothing but QR factors, and the theorem's problem."""

import torch

from lop_utils import init

F64 = {"dtype": torch.float64}
SIGMA = (1.0, 0.9, 0.8)  # the target's singular values: norm 1, rank r = 3


def low_rank_target(d_y, d_x, s, *, generator):
    """Draw a matrix with singular values ``s`` and random orthonormal singular vectors."""
    U, V = (
        torch.linalg.qr(torch.randn(d, len(s), generator=generator, dtype=s.dtype)).Q
        for d in (d_y, d_x)
    )
    return ((U * s.cpu()) @ V.T).to(s.device)


def problem(case, d, L, eps, kind=F64, sigma=SIGMA):
    """Draw the theorem's start and target; case 1 has d_y = d, case 2 has d_y = r."""
    generator = torch.Generator().manual_seed(0)
    d_y = d if case == 1 else len(sigma)
    Phi = low_rank_target(d_y, d, torch.tensor(sigma, **kind), generator=generator)
    return init.orthogonal((d,) * L + (d_y,), eps, generator=generator, **kind), Phi
