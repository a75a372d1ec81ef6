"""The certified minimum of the robust loss: its certificate, and the solver that finds it."""
