"""The policy: a Hugging Face causal LM behind two calls."""
