"""The project with a view and handlers that fail, and that publish to each other."""
