"""Weights in files, of either phase."""
