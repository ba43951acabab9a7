"""Who samples and learns: one seam between a stage and its model, whether both are in this process or far away."""
