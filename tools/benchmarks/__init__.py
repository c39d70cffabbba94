"""Comparisons of casfs with its peers and with the limits of the machine, in one run."""
