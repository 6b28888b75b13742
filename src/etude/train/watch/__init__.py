"""What watches a run: callbacks, the record of its rows, its pace."""
