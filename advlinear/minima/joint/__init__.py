"""The least robust loss of K > 2 classes that are trained together.

A sample i of class y_i has a margin over each other class k. The pair (i, k) is an *option* of the
sample, and its row in the operators. Options are sorted by sample; a sample may have any number of
them, but at least one.

solver.py picks the method. In the L-infinity ball program.py states the linear program and what a
part of it is; generation.py solves parts that grow, by the interior point and by vertex.py, from
the guess of descent.py. In the L2 and L1 balls direct.py solves for all weights at once. groups.py
takes separable groups of classes by themselves. losses.py, operators.py and cones.py are what the
interior point is given. certificate.py and rational.py use nothing of these.
"""
