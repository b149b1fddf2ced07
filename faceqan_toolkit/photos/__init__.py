"""Where the bytes of photos come from; what each place is like stays in here."""
