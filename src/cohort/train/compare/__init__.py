"""Comparisons: the same stage trained in several ways from the same weights, and what held-out problems say of each."""
