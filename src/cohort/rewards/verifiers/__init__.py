"""Verifiers: what a completion says or looks like, compared with what is wanted. One file or folder each."""
