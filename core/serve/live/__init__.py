"""The live view: experiments and their runs in a browser, while they learn."""
