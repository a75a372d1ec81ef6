"""One function per figure; see plots.py for what each is drawn from.

docs/reference.md, "Adding a figure", shows a new one.
"""
