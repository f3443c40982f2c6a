"""Builders of files that are checked in: example workflows, their thumbnails, help pictures, translations."""
