"""Every metric against published scorers and against examples worked by hand."""
