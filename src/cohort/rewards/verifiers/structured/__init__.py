"""Is the answer JSON that fits a JSON Schema?"""
