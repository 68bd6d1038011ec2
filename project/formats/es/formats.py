"""Spanish dates for lists: short, with second and zone."""

DATE_FORMAT = "d/m/Y"
DATETIME_FORMAT = SHORT_DATETIME_FORMAT = "d/m/Y H:i:s e"
