"""A language model behind an OpenAI-compatible endpoint judges answers; what it said once is not asked again."""
