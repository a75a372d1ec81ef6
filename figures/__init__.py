"""One function per figure; see plots.py for what each is drawn from."""
