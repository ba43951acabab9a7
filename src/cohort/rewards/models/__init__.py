"""Rewards that are models: Hugging Face classifiers of whole completions, and of their steps."""
