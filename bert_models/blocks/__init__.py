"""The layers that an encoder is made of: embeddings, feed-forward, encoder block."""
