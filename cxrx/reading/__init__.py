"""Reading films: find files, decode DICOM, PNG and JPEG in workers, bring them onto a model's input grid (no torch)."""
