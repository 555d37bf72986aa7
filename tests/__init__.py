"""Tests; the folders mirror src/lottery_tickets."""
