"""Plumbing that any program of this kind needs: processes, hardware, logs, files and errors."""
