"""What can go wrong in a run and be seen in its numbers: one detector each, pure functions of numbers and groups."""
