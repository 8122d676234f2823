"""Commands beside main.py: one a file, run as `python -m util_scripts.NAME`."""
