"""Callbacks that watch the training of other libraries for an early-bird ticket; only the one in use needs its library.

| trainer | what to use |
| --- | --- |
| transformers | `lottery_tickets.integrations.transformers.EarlyBirdCallback` |
| Lightning | `lottery_tickets.integrations.lightning.EarlyBirdCallback` |
| Accelerate, a loop of your own | `lottery_tickets.EarlyBirdWatcher`, its `observe` after each optimizer step |
"""
