"""The programs that run inside a CI job. Imports nothing of the host's parts: files and exit codes are its contract."""
