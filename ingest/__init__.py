"""Everything of casfs that talks to the network; imports casfs, never the other way round."""
