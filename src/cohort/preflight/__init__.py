"""Before the first step: what is looked at, so that a run that cannot go well does not start."""
