"""What networks that become smaller save, and what they lose."""
