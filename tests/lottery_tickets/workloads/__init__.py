"""Tests of `lottery_tickets.workloads`."""
