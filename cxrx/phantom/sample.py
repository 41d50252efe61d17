"""Write the films of `sample_data`: ``python -m cxrx.phantom.sample OUT``."""

from __future__ import annotations

import sys
from pathlib import Path

from cxrx.phantom.dicom import Encoding, presentation_state
from cxrx.phantom.film import make_film
from cxrx.phantom.folder import write_folder

SEED = 43
FILMS = 24
ENCODINGS = (
    Encoding("jpeg2000"),
    Encoding("jpegls"),
    Encoding("rle"),
    Encoding("explicit"),
    Encoding("jpeg2000", photometric="MONOCHROME1"),
    Encoding("jpegls", voi="lut"),
    Encoding("explicit", photometric="MONOCHROME1", voi="lut"),
    Encoding("rle", photometric="MONOCHROME1"),
)
README = """# sample_data

{films} synthetic frontal chest films with planted findings, made by

```
python -m cxrx.phantom.sample sample_data
```

(seed {seed}, which the demo models never saw in training; the same command gives the same files, byte for byte with the
same versions of numpy, pydicom and the codecs). No patient is behind them: patient names such as PHANTOM0001 are made
up.

- `films/*.dcm`: Digital X-Ray images, 12 bits, of mixed encodings: uncompressed, RLE, JPEG 2000, JPEG-LS (all
  lossless), MONOCHROME2 and MONOCHROME1, with a window or a lookup table.
- `state.dcm`: a presentation state, which is no film: cxrx skips it and says why.
- `truth.csv`: path, 0 or 1 for each finding, patient, view. `boxes.csv`: one row per lesion: path, finding, and
  x, y (upper left corner), w, h in pixels of the film.

Licence: Apache-2.0, like cxrx.
"""


def main(argv: list[str]) -> int:
    """Write the sample into the folder named on the command line."""
    if len(argv) != 1:
        print("usage: python -m cxrx.phantom.sample OUT", file=sys.stderr)
        return 2
    write_sample(Path(argv[0]))
    return 0


def write_sample(out: Path) -> None:
    """Write films, tables, the presentation state and the README into `out`, a new or empty folder."""
    write_folder(out, FILMS, SEED, encodings=ENCODINGS, masks=False)
    state = presentation_state(make_film(SEED, 0, patient=0))
    state.save_as(out / "state.dcm", enforce_file_format=True)
    (out / "README.md").write_text(README.format(films=FILMS, seed=SEED), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
