"""Keras layers whose weights are the cores of a spec."""
