"""What a paper needs beside the figures: which methods were used, in words, and who they are by."""
