"""Worker processes that score groups while the trainer samples on: the pool, its lanes, and the way to a worker."""
