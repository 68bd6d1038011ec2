"""
`make bench`: this project beside other ways to do the same, on private servers.

Start with `__main__.py`. A *row* (`comparison.py`) measures its contestants in turn, in
several rounds of one run: machines differ from day to day, so that only ratios within a
round count. The rows are in `accepting`, `publishing`, `draining`, `sharing`,
`responding`, `reporting`, `growing` and `reading`; the other ways are programs under
`baselines/`.
"""
