"""From notebooks to one page: `python -m report.build`; and benches, peers, reference runs."""
