"""Does a map depend on what it should, and on nothing else? Randomised networks, reseeded runs, noisy films.

``similarity`` and ``judge`` work on maps and tables and need no torch; the rest runs the network again.
"""
