"""Host operators that gnncompose itself offers, by the entry points that any package may use for its own."""
