"""Stages that learn from a teacher on what the policy itself samples."""
