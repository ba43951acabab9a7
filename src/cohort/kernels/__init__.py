"""Compiled CPU kernels, and their doors from PyTorch."""
