"""The exact attack: what counts as a model, the nearest rival, the way to a target."""
