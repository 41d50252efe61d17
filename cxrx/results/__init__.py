"""results.h5: parts, packing, reading, verifying, merging, importing. Imports no torch."""
