"""train.objective.kind = "reward": a model writes answers, they are scored, and the better ones become more likely."""
