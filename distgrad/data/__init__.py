"""Arrays and indices: what a worker trains on, cut the same way for any number of workers."""
