"""Data sets, and pictures: from files to uint8 images of one form."""
