"""Environments of the library `verifiers`: tasks as prompts, its turns, its rewards."""
