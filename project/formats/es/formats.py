"""Dates in lists: Django's Spanish ones are sentences."""

DATE_FORMAT = "d/m/Y"
DATETIME_FORMAT = "d/m/Y H:i"
