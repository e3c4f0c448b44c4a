"""The Mendeley lumbar set: axial slices and radiologists' notes."""
