"""The other ways: small programs, written as the documentation of each shows."""
