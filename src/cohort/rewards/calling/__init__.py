"""From a reward's table to the scores of a group: the function is found, called with what it asks for, and read."""
