"""What lies between a record and a batch: examples, stored media, packs. Knows no family."""
