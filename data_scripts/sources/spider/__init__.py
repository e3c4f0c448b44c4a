"""SPIDER: sagittal MRI volumes, masks and graded discs."""
