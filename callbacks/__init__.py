"""Lightning's side: stages, passes, the store, progress, reports and loggers."""
