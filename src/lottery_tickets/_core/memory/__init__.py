"""How much memory things take: counted, foretold, asked for."""
