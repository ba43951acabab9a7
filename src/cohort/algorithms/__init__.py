"""The mathematics of GRPO and its family: pure functions on tensors, no configuration, no I/O.

`objectives` is the door: an `Objective` says which member of the family runs, `policy_loss` computes it. The other
modules are its parts, each usable alone: `advantages`, `losses`, `kl`, `token_weights`, `corrections`; `explain`
turns an objective into words.
"""
