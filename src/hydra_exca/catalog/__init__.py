"""What a cache folder holds, read only: entries, launches and sweeps as records."""
