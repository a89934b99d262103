"""Models as files that other engines run."""
