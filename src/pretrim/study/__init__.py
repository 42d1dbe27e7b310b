"""A study: many plans of one network, trained, kept, compared; see `docs/study.md`."""
