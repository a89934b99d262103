"""The layers that an encoder is made of: embeddings, attention, feed-forward, encoder block."""
