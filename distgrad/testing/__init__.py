"""Helpers for tests, shipped so that users can test their own code with them."""
