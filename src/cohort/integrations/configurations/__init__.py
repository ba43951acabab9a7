"""Configurations of other trainers, read as recipes."""
