"""Collectives between workers: one communicator, over any transport of bytes."""
