"""The in-process generation engine."""
