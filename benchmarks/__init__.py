"""One file per figure: each prints its own table, with its peers in the same run."""
