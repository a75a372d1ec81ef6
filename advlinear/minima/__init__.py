"""The solver behind `minimise`; docs/theory.md derives it and numbers the equations cited here.

To read it from the top: operators.py, the worst-case margins as a linear map; cones.py, what bounds
the norm of the weights; losses.py, the hinge and the logistic loss, and curvatures.py, how they
bend; interior.py, the method; vertex.py, the last step of a linear program. scaled.py is what
operators have in place of an array of large samples, spread.py of a dask array. The Protocols
Operator, Cone, Loss and Curvature say what a new one has to provide. program.py picks the operator
and the cone for a ball and a box; working_sets.py gives it some features of many, and keeps a
sparse X sparse. sparse_l2.py and newton.py take a sparse X in the L2 ball, wide.py more features
than samples; roads.py chooses among all these. certificate.py uses nothing of them, but rounding.py
alone. joint/ has the same for more than two classes. path.py has the minima at all radii of an
interval, walk.py finds those in the L-infinity ball, from samples as of signed.py, and pieces.py
proves them.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Indices = NDArray[np.intp]
