"""An experiment opened for work: everything that a command, a notebook or a server can ask for."""
