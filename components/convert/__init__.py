"""Rows of any written form become records; reads what ingest brought, and no source."""
