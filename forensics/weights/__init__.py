"""Shipped checkpoints, read through importlib.resources."""
