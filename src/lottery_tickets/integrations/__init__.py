"""Doors to other libraries, each of which only the one in use needs: trainers that are watched, loggers that are told.

| trainer | what to use |
| --- | --- |
| transformers | `lottery_tickets.integrations.transformers.EarlyBirdCallback` |
| Lightning | `lottery_tickets.integrations.lightning.EarlyBirdCallback` |
| Accelerate, a loop of your own | `lottery_tickets.EarlyBirdWatcher`, its `observe` after each optimizer step |

| `logger=` of what trains | extra |
| --- | --- |
| `lottery_tickets.integrations.tensorboard.TensorBoardLogger(folder)` | tensorboard |
| `lottery_tickets.integrations.wandb.WandbLogger(project, mode="offline")` | wandb |
| anything with a method `log(values, step)` | |
"""
