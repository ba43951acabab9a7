"""The account of a run: every fact of record.json, each with what it rests on, and what they come to."""
