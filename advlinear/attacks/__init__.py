"""The exact attack; docs/theory.md derives it and numbers the equations cited here.

To read it from the top: attack.py, what a caller gets; models.py, what counts as a linear model,
and refusals.py, what is known not to be one; rivals.py, the nearest of many classes; targets.py,
the way to a given class; moves.py, what is attacked and where its samples are moved to; checks.py,
the model itself on both sides of each radius; comparison.py, the points of other attacks. The
distance to one class is in advlinear/balls.py.
"""
