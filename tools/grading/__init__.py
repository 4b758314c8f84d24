"""What grades submissions: a judge that holds the tests, and walled workers that run notebooks.

``judge`` (tests, points) and ``walls`` (where notebooks run) are ours; ``worker`` runs behind the
walls, ``wire`` is what both sides of a socket say; ``handed_in`` reads a folder, ``report`` writes
the table and the feedback.
"""
