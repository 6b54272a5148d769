"""From a mask to its objects: one number each, their sizes and intensities."""
