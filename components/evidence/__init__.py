"""What the answers of two models to the same questions prove, and what so many questions could prove."""
