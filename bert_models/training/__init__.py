"""Training of encoders: optimizers, and how their learning rate runs."""
