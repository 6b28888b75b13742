"""`etude new`: a folder to begin with, for every task: a commented config, a small sample of data, what to do next."""
