"""Preprocessing of slices for segmentation: denoising, masks where no expert drew, balanced classes."""
