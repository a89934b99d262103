"""A Keras model in, a smaller Keras model out."""
