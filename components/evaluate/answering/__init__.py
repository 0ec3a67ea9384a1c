"""Questions become answers: kept as they come, batched by length, by one process or by several Ray actors."""
