"""Callbacks that watch somebody else's training for an early-bird ticket; each needs its library, this package none.

| trainer | what to use |
| --- | --- |
| transformers | `lottery_tickets.integrations.transformers.EarlyBirdCallback` |
| Lightning | `lottery_tickets.integrations.lightning.EarlyBirdCallback` |
| Accelerate, a loop of your own | `lottery_tickets.EarlyBirdWatcher`, its `observe` after each optimizer step |
"""
