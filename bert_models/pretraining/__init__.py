"""Pretraining data: raw text in, shards of masked examples out."""
