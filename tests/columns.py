"""What people have in the place of a tensor."""

import numpy as np


class Column:
    """A filtered column of a data frame: an array whose index does not begin at 0."""

    def __init__(self, values):
        self.values = np.asarray(values)

    def __array__(self, dtype=None, copy=None):
        return self.values

    def __len__(self):
        return len(self.values)

    def __getitem__(self, label):
        raise KeyError(label)


def read_only(A):
    A = A.numpy().copy()
    A.flags.writeable = False
    return A


KINDS = {
    "list": lambda A: A.tolist(),
    "array": lambda A: A.numpy(),
    "negative-strides": lambda A: A.numpy()[..., ::-1].copy()[..., ::-1],
    "read-only": read_only,
    "column": Column,
}
