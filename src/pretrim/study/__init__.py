"""Studies: many plans of one network, trained, stored and compared; see `docs/study.md`."""
