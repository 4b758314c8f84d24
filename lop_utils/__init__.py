"""What the book on the law of parsimony computes with.

Import the modules by name: ``from lop_utils import descent, dln, parsimony, plots``.
"""

__version__ = "0.1.0"
