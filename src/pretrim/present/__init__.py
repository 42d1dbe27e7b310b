"""Display of records as tables, for terminals and notebooks; this package only formats, it computes nothing."""
