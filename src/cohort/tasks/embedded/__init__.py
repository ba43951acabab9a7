"""The two tasks that Cohort brings along: word problems and arithmetic, made as needed from a seed."""
