"""Files of other tools, read in their words and said in Etude's."""
