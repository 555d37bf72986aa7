"""What becomes of files that were cut short, altered or made by others, when we read them."""
