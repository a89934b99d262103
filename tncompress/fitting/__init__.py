"""Weights in, cores out, in numpy: moments of what a layer sees, closed forms and alternating least squares."""
