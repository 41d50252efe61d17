"""Training: for now the demo models'."""
