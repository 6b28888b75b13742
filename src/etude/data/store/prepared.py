"""Names of before."""

from etude.data.store.pairs import prepare_pairs
from etude.data.store.table import Table as TokenTable

__all__ = ["TokenTable", "prepare_pairs"]
