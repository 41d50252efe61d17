"""Maps and truth that were made elsewhere, turned into a results file."""
