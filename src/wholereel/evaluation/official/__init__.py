"""Reports in the official protocols of data sets, from files of predictions: a name, the function, and its files."""
