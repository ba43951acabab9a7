"""Does the code of a completion pass its tests?"""
