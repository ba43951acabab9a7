"""Other libraries, one folder each: its source of prompts, its reward and its environment together.

The libraries are extras. Nobody imports these folders: tables of names lead to them when a recipe names one.
"""
