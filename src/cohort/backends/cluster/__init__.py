"""Learner, samplers and rewards as actors of a Ray cluster: any of them may die, and costs a retry."""
