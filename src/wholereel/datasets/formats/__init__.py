"""One file a data set: its official annotation files, exactly as published. The table of them is `catalogue.py`."""
