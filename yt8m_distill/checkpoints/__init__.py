"""Reading and writing the folders of runs."""
