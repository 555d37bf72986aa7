"""What things take in memory, beside what was foretold."""
