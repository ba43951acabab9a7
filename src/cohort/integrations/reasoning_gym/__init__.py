"""reasoning-gym: the tasks whose scoring survived the gate, each problem from a seed of its own, and the reward."""
