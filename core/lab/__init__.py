"""Work with an experiment: everything that the commands and the Python API do."""
