"""Matrices of known singular values, from nothing but QR factors."""

import torch


def low_rank_target(d_y, d_x, s, *, generator):
    """Draw a matrix with singular values ``s`` and random orthonormal singular vectors."""
    U, V = (
        torch.linalg.qr(torch.randn(d, len(s), generator=generator, dtype=s.dtype)).Q
        for d in (d_y, d_x)
    )
    return ((U * s.cpu()) @ V.T).to(s.device)
