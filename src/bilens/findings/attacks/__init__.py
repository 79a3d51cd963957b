"""Universal attacks: one change for all inputs, the provably best beside others of its length."""
