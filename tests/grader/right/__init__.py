"""Right answers in other words, one module for each assignment.

``RIGHT[STYLE][QUESTION]`` stands in the place of the reference's answer to a question; where there
is none, the reference's stays. ``NAMED[STYLE, QUESTION]`` is what a student has to be told instead
of getting all points.
"""
