"""Do maps tell what the model looks at? Pixels are changed in the order of the map, and the model is run again.

Light to import; :func:`cxrx.compare.faithfulness.score.score_faithfulness` runs the model.
"""

from __future__ import annotations

from cxrx.compare.faithfulness.curves import deletion, insertion
from cxrx.compare.faithfulness.family import Family
from cxrx.compare.faithfulness.noise import infidelity
from cxrx.compare.faithfulness.road import ROAD
from cxrx.compare.faithfulness.superpixels import sensitivity_n
from cxrx.compare.faithfulness.tiles import aopc

FAMILIES: tuple[Family, ...] = (deletion(), insertion(), ROAD, aopc(), sensitivity_n(), infidelity())
"""The built-in families, in the order of the tables."""

MEASURES = {key: measure for family in FAMILIES for key, measure in family.measures.items()}
"""What their scores are, in the order of the tables."""

DEFAULT = ("deletion", "insertion", "road")
"""Those that ``--metrics faithfulness`` computes."""
