"""Folders of photos, and the batches of images that they become."""
