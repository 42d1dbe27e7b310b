"""Records as people read them: tables for terminals and notebooks; nothing here computes or writes to a stream."""
