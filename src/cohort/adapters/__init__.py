"""Other libraries' environments, in Cohort's types. The libraries are extras, imported when a recipe names them."""
