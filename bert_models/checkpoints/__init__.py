"""Weights from other people's files: the name tables and the readers."""
