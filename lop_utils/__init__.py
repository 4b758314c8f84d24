"""What the book on the law of parsimony computes with.

Import the modules by name: ``from lop_utils import descent, init, losses``.
"""

__version__ = "0.1.0"
