"""The gate: do gold answers pay, and answers that know nothing not? `examine` asks, `report` says what it means."""
