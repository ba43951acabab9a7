"""`python -m cohort` is the command `cohort`."""

from cohort.cli import main

main()
