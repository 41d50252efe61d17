"""Files that are whole or not there: atomic writes, and locks between processes."""
