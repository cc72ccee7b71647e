"""Launchers: how the ranks of a job come to life, and what ends them."""
