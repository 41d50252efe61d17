"""Classifiers: architectures, checkpoints, and the wrapper that gives every network the same face."""
