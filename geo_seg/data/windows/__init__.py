"""Windows: where they may lie, how they are drawn and loaded."""
