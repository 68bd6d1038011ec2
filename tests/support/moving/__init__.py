"""Programs from before the move that `docs/moving-in.md` is about."""
