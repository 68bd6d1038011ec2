"""The other ways: small programs as their documentation would have one write them."""
