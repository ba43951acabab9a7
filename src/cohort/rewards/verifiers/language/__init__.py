"""Is the text written in the wanted language?"""
