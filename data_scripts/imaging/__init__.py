"""Pixels and geometry from DICOM, MetaImage and picture files."""
