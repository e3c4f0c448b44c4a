"""Map functions that vary texts and images and keep every fact."""
