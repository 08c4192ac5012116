"""Settings that follow from the data's own facts and the machine."""
