"""Layers of others, for the benchmarks to compare with; each is optional."""
