"""The least robust loss of K > 2 classes that are trained together.

A sample i of class y_i has a margin over each other class k. The pair (i, k) is an *option* of the
sample, and its row in the operators. Options are sorted by sample; a sample may have any number of
them, but at least one.
"""
