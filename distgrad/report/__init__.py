"""Runs as people look at them: what lies in their folders, in lists, side by side and as a page."""
