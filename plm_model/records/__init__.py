"""A row of conversation, checked: turns, boxes, clips. Knows no pixel and no token."""
