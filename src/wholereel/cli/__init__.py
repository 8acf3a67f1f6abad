"""The command line: reads words, calls the rooms below, prints. No logic of its own."""
