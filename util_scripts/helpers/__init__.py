"""What several commands share; no file here is a command."""
