"""Does a text keep formal rules?"""
