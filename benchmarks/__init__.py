"""Benchmarks: this project beside its peers, in the same run, with medians, ratios and the spread between rounds.

make bench                          all of them; tables on the terminal, JSON in benchmarks/results/
python -m benchmarks calls --quick  one of them, shorter
"""
