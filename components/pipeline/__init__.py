"""The whole as data: schema, table of steps, and how one step is run; imports every step's settings."""
