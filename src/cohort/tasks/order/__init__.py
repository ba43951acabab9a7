"""Which prompt comes next: shuffled epochs, weights of a mixture, levels that rise, prompts that rest."""
