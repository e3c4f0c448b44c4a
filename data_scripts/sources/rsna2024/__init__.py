"""RSNA 2024: DICOM studies with graded stenosis."""
