"""Model families, each a folder; nothing outside a family imports it but by `plm_model.family.part`."""
