"""How fast this machine is, as the doctor measured it, and how long work then takes."""
