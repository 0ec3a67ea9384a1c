"""What a step leaves is whole or absent; imports no step and no pipeline."""
