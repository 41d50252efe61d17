"""Numbers in NumPy: scores, thresholds, intervals, geometry. Nothing here knows files, models or tables."""
