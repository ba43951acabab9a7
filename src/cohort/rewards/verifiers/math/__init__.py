"""Is the final answer mathematically the gold answer?"""
