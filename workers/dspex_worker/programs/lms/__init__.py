"""Language models: DSPy's, with requests that the parent sends, and those that user code makes."""
