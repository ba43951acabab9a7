"""A language model behind an API as the judge of completions."""
