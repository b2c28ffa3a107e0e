"""What an optimization tried, as rows, as a plot and as a page. Nothing here asks a model or a worker."""
