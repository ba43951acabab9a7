"""What a person sees, and the numbers behind it."""
