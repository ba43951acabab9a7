"""Where prompts come from: files, Hugging Face datasets, Python objects, and sources by name."""
