"""The gate: do gold answers pay, and answers that know nothing not? `examine` asks, `findings` says what it means."""
