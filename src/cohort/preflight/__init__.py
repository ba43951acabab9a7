"""What is looked at before the first step: the parts of a stage, what is refused, gold answers, the gate, isolation."""
